//! How long a quiet learner stays awake: longer for one who thinks between messages, shorter for one who fires them off.

use std::time::Duration;

/// How many gaps are looked at: those between the last five messages.
pub const GAPS: usize = 4;
/// How many median gaps a learner may be quiet.
const FACTOR: u32 = 3;

/// The idle window: three times the median gap of the last five messages, within the class's bounds. With fewer than two
/// messages nothing is known and the longest window is given.
pub fn window(gaps: &[Duration], shortest: Duration, longest: Duration) -> Duration {
    let mut gaps: Vec<Duration> = gaps.iter().rev().take(GAPS).copied().collect();
    gaps.sort_unstable();
    let median = match (gaps.len(), gaps.len() / 2) {
        (0, _) => return longest.max(shortest),
        (odd, middle) if odd % 2 == 1 => gaps[middle],
        (_, middle) => (gaps[middle - 1].saturating_add(gaps[middle])) / 2,
    };
    median.saturating_mul(FACTOR).min(longest).max(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_mins(1);
    const LONGEST: Duration = Duration::from_mins(15);

    fn seconds(gaps: &[u64]) -> Vec<Duration> {
        gaps.iter().map(|s| Duration::from_secs(*s)).collect()
    }

    #[test]
    fn the_window_is_three_median_gaps_of_the_last_five_messages() {
        let window = |gaps: &[u64]| window(&seconds(gaps), SHORTEST, LONGEST).as_secs();
        assert_eq!(window(&[50]), 150);
        assert_eq!(window(&[30, 40]), 105);
        assert_eq!(window(&[9000, 31, 9000]), 900);
        assert_eq!(window(&[7000, 7000, 7000, 40, 50, 60, 70]), 165);
    }

    #[test]
    fn the_class_bounds_it() {
        assert_eq!(window(&seconds(&[1, 1, 1, 1]), SHORTEST, LONGEST), SHORTEST);
        assert_eq!(window(&[Duration::MAX; 4], SHORTEST, LONGEST), LONGEST);
    }

    #[test]
    fn nothing_known_gives_the_longest() {
        assert_eq!(window(&[], SHORTEST, LONGEST), LONGEST);
    }
}
