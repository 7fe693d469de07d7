//! So many a second; what was not used is made up for, up to a bound. It decides from the time that it is told.

use std::time::Duration;

use jiff::Timestamp;

/// So many a second.
#[derive(Debug)]
pub(crate) struct Rate {
    every: Duration,
    /// What was not used for so long may be used at once.
    made_up: Duration,
    next: Timestamp,
}

impl Rate {
    pub(crate) fn new(per_second: u32, made_up: Duration) -> Self {
        Self {
            every: Duration::from_secs(1) / per_second.max(1),
            made_up,
            next: Timestamp::MIN,
        }
    }

    /// Uses one now; or says when there is one.
    pub(crate) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let at = self.next.max(now - self.made_up);
        if at > now {
            return Err(at);
        }
        self.next = at + self.every;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_is_made_up_for_and_no_more() {
        let now = Timestamp::from_second(1_783_591_200).unwrap();
        let mut rate = Rate::new(5, Duration::from_secs(2));
        let mut at_once = |now| (0..100).take_while(|_| rate.take(now).is_ok()).count();
        assert_eq!(at_once(now), 11, "two seconds' worth, and the one of now");
        assert_eq!(at_once(now + Duration::from_secs(1)), 5);
        assert_eq!(at_once(now + Duration::from_hours(1)), 11);
    }
}
