//! How many pods a pool asks for now: slowly at first, more when they become ready, fewer when they die.

/// The most pods of one pool that start at once.
const MOST: usize = 64;

/// What a pool has, beside the pods that are somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Have {
    pub(crate) ready: usize,
    pub(crate) starting: usize,
    /// That have ended before they were anybody's.
    pub(crate) died: usize,
}

/// How fast a pool is filled: as a slow start, so that a template that cannot run costs little. The batch doubles when the
/// one before has become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    batch: usize,
    /// How many were ready at the last look.
    ready: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 1, ready: 0 }
    }
}

impl Pace {
    /// How many to make now.
    pub(crate) fn create(&mut self, size: usize, have: Have) -> usize {
        if have.died > 0 {
            self.batch = 1;
        } else if have.ready > self.ready {
            self.batch = (self.batch * 2).min(MOST);
        }
        self.ready = have.ready;
        let missing = size.saturating_sub(have.ready + have.starting);
        missing.min(self.batch.saturating_sub(have.starting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn have(ready: usize, starting: usize) -> Have {
        Have {
            ready,
            starting,
            died: 0,
        }
    }

    #[test]
    fn a_pool_is_filled_faster_as_its_pods_become_ready() {
        let mut pace = Pace::default();
        assert_eq!(pace.create(10, have(0, 0)), 1);
        assert_eq!(pace.create(10, have(0, 1)), 0, "the first is waited for");
        assert_eq!(pace.create(10, have(1, 0)), 2);
        assert_eq!(pace.create(10, have(3, 0)), 4);
        assert_eq!(pace.create(10, have(7, 0)), 3, "no more than are missing");
        assert_eq!(pace.create(10, have(10, 0)), 0);
    }

    #[test]
    fn one_whose_pods_die_is_filled_one_by_one() {
        let mut pace = Pace::default();
        pace.create(100, have(0, 0));
        pace.create(100, have(1, 0));
        assert_eq!(pace.create(100, have(3, 0)), 4);
        let died = Have {
            died: 4,
            ..have(3, 0)
        };
        assert_eq!(pace.create(100, died), 1);
        assert_eq!(pace.create(100, have(3, 1)), 0);
        assert_eq!(pace.create(100, have(4, 0)), 2, "one became ready");
    }

    #[test]
    fn whoever_takes_pods_does_not_slow_it_down() {
        let mut pace = Pace::default();
        pace.create(8, have(0, 0));
        pace.create(8, have(1, 0));
        pace.create(8, have(3, 0));
        assert_eq!(pace.create(8, have(8, 0)), 0);
        assert_eq!(pace.create(8, have(5, 0)), 3);
    }
}
