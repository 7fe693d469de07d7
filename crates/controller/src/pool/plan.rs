//! How many pods a pool asks for now: slowly at first, more when they become ready, fewer and fewer when they die.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_core::{PodUid, backoff};
use tokio::time::Instant;

/// The most pods of one pool that start at once.
const MOST: usize = 64;

/// What a pool has, beside the pods that are somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Have {
    pub(crate) ready: usize,
    pub(crate) starting: usize,
    /// Of those that start, who have done so for long.
    pub(crate) slow: usize,
}

/// How fast the pool of one template is filled: as a slow start, so that one that cannot run costs little. The batch doubles when the one
/// before has become ready; where pods die, one is tried at a time, and after each that died the pause is longer.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    batch: usize,
    /// How many were ready at the last look.
    ready: usize,
    /// Those that had died at the last look: one that cannot be removed has died once.
    dead: BTreeSet<PodUid>,
    /// Tries in a row that came to nothing.
    failed: u32,
    /// None is made before.
    resumes: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 1,
            ready: 0,
            dead: BTreeSet::new(),
            failed: 0,
            resumes: None,
        }
    }
}

impl Pace {
    /// How many to make now.
    pub(crate) fn create(&mut self, size: usize, have: Have, now: Instant) -> usize {
        if have.ready > self.ready {
            self.batch = (self.batch * 2).min(MOST);
            self.failed = 0;
            self.resumes = None;
        }
        self.ready = have.ready;
        if self.pauses(now) {
            return 0;
        }
        let missing = size.saturating_sub(have.ready + have.starting);
        missing.min(self.batch.saturating_sub(have.starting - have.slow))
    }

    /// Takes in which pods have ended before they were anybody's; the pause that follows, if one begins.
    pub(crate) fn died(&mut self, dead: BTreeSet<PodUid>, now: Instant) -> Option<Duration> {
        let is_news = !dead.is_subset(&self.dead);
        self.dead = dead;
        if is_news { self.fails(now) } else { None }
    }

    /// Takes in that a try came to nothing; the pause that follows, if one begins. The first costs nothing, as with learners.
    pub(crate) fn fails(&mut self, now: Instant) -> Option<Duration> {
        self.batch = 1;
        // What was begun together fails together.
        if self.pauses(now) {
            return None;
        }
        self.failed = self.failed.saturating_add(1);
        let pause = backoff::delay(self.failed, backoff::MAX_UNASKED_DELAY);
        self.resumes = Some(now + pause);
        Some(pause).filter(|pause| !pause.is_zero())
    }

    fn pauses(&self, now: Instant) -> bool {
        self.resumes.is_some_and(|at| now < at)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn have(ready: usize, starting: usize) -> Have {
        Have {
            ready,
            starting,
            slow: 0,
        }
    }

    fn pods(numbers: impl IntoIterator<Item = u128>) -> BTreeSet<PodUid> {
        numbers
            .into_iter()
            .map(|number| PodUid(Uuid::from_u128(number)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_filled_faster_as_its_pods_become_ready() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.create(10, have(0, 0), now), 1);
        assert_eq!(
            pace.create(10, have(0, 1), now),
            0,
            "the first is waited for"
        );
        assert_eq!(pace.create(10, have(1, 0), now), 2);
        assert_eq!(pace.create(10, have(3, 0), now), 4);
        assert_eq!(
            pace.create(10, have(7, 0), now),
            3,
            "no more than are missing"
        );
        assert_eq!(pace.create(10, have(10, 0), now), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_pods_die_is_filled_one_by_one() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.create(100, have(0, 0), now);
        pace.create(100, have(1, 0), now);
        assert_eq!(pace.create(100, have(3, 0), now), 4);
        assert_eq!(pace.died(pods(1..5), now), None);
        assert_eq!(pace.create(100, have(3, 0), now), 1);
        assert_eq!(pace.create(100, have(3, 1), now), 0);
        assert_eq!(pace.create(100, have(4, 0), now), 2, "one became ready");
    }

    #[tokio::test(start_paused = true)]
    async fn where_each_dies_the_pause_doubles_until_one_is_ready() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut pauses = Vec::new();
        for number in 0..13 {
            assert_eq!(pace.create(9, have(0, 0), now), 1);
            let pause = pace.died(pods([number]), now);
            // It is still there, and another of its batch dies.
            assert_eq!(pace.died(pods([number]), now), None);
            let pause = pause.unwrap_or_default();
            if !pause.is_zero() {
                assert_eq!(pace.died(pods([number, 99]), now), None);
                let early = now + pause - Duration::from_millis(1);
                assert_eq!(pace.create(9, have(0, 0), early), 0);
            }
            now += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        pace.create(9, have(1, 0), now);
        assert_eq!(pace.died(pods([77]), now), None, "the row has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_pods_does_not_slow_it_down() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.create(8, have(0, 0), now);
        pace.create(8, have(1, 0), now);
        pace.create(8, have(3, 0), now);
        assert_eq!(pace.create(8, have(8, 0), now), 0);
        assert_eq!(pace.create(8, have(5, 0), now), 3);
    }
}
