//! How long a learner waits whose incarnations die before they commit.

use std::time::Duration;

/// The longest wait.
pub const MAX_DELAY: Duration = Duration::from_secs(10);

/// The wait after so many young deaths in a row: 0, 1, 2, 4 … seconds, at most [`MAX_DELAY`]. The first costs nothing:
/// it is most often a node or a server that went away.
pub fn delay(young_deaths: u32) -> Duration {
    match young_deaths {
        0 | 1 => Duration::ZERO,
        more => 1u64.checked_shl(more - 2).map_or(MAX_DELAY, |seconds| {
            Duration::from_secs(seconds).min(MAX_DELAY)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_one_second_to_ten() {
        let seconds: Vec<u64> = (0..9).map(|deaths| delay(deaths).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(delay(66), MAX_DELAY);
        assert_eq!(delay(u32::MAX), MAX_DELAY);
    }
}
