//! How long a learner waits whose incarnations die before they commit.

use std::time::Duration;

/// The longest wait where somebody may be waiting.
pub const MAX_DELAY: Duration = Duration::from_secs(10);
/// The longest wait of a learner that is kept awake and that nobody has asked for.
pub const MAX_UNASKED_DELAY: Duration = Duration::from_mins(10);

/// The wait after so many young deaths in a row: 0, 1, 2, 4 … seconds, at most `longest`. The first costs nothing:
/// it is most often a node or a server that went away.
pub fn delay(young_deaths: u32, longest: Duration) -> Duration {
    match young_deaths {
        0 | 1 => Duration::ZERO,
        more => 1u64
            .checked_shl(more - 2)
            .map_or(longest, |seconds| Duration::from_secs(seconds).min(longest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_one_second_to_the_longest() {
        let seconds = |longest| (0..9).map(move |deaths| delay(deaths, longest).as_secs());
        assert!(seconds(MAX_DELAY).eq([0, 0, 1, 2, 4, 8, 10, 10, 10]));
        assert!(seconds(MAX_UNASKED_DELAY).eq([0, 0, 1, 2, 4, 8, 16, 32, 64]));
        assert_eq!(delay(66, MAX_DELAY), MAX_DELAY);
        assert_eq!(delay(u32::MAX, MAX_UNASKED_DELAY), MAX_UNASKED_DELAY);
    }
}
