//! What is done in a minute, by whom it is done for: the generic cell rate algorithm (ITU-T I.371), a minute's worth at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// How many are remembered before those who may go on at will are forgotten.
const FORGET_ABOVE: usize = 1024;
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// The limit, with who is how far from it.
#[derive(Debug)]
pub(crate) struct RateLimit<K> {
    per_minute: u32,
    /// When each one's minute is unused again.
    free_at: Mutex<HashMap<K, Timestamp>>,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            per_minute: per_minute.max(1),
            free_at: Mutex::default(),
        }
    }

    fn interval(&self) -> SignedDuration {
        MINUTE / i32::try_from(self.per_minute).unwrap_or(i32::MAX)
    }

    /// Takes one place; how long to wait when there is none.
    pub(crate) fn take(&self, of: &K, now: Timestamp) -> Result<(), SignedDuration> {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        if free_at.len() > FORGET_ABOVE {
            free_at.retain(|_, free| *free > now);
        }
        let free = free_at.get(of).map_or(now, |free| (*free).max(now));
        let next = free + self.interval();
        let over = next.duration_since(now) - MINUTE;
        if over > SignedDuration::ZERO {
            return Err(over);
        }
        free_at.insert(of.clone(), next);
        Ok(())
    }

    /// Gives a place back that was not used.
    pub(crate) fn give_back(&self, of: &K) {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = free_at.get_mut(of) {
            *free -= self.interval();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_so_many_and_frees_one_by_one() {
        let (limit, ada) = (RateLimit::new(3), "ada");
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("in range");
        for _ in 0..3 {
            assert_eq!(limit.take(&ada, at(0)), Ok(()));
        }
        assert_eq!(limit.take(&ada, at(0)), Err(SignedDuration::from_secs(20)));
        assert_eq!(limit.take(&"bob", at(0)), Ok(()));
        assert_eq!(limit.take(&ada, at(20)), Ok(()));
        assert!(limit.take(&ada, at(21)).is_err());
        limit.give_back(&ada);
        assert_eq!(limit.take(&ada, at(21)), Ok(()));
    }
}
