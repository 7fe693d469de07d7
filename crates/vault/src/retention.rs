//! Which generations are kept: by our own numbers and the store's times, never by dates written in a pod.

use std::collections::BTreeSet;

use carrel_core::Generation;
use carrel_core::class::SnapshotPolicy;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A generation with the time of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// Its number.
    pub generation: Generation,
    /// When the store committed it.
    pub time: Timestamp,
}

/// The generations that a policy keeps: the newest ones, and the last ones of the newest days and weeks (UTC, ISO 8601)
/// that have any. The newest of all is always kept.
pub fn kept(generations: &[Dated], policy: &SnapshotPolicy) -> BTreeSet<Generation> {
    let mut newest_first = generations.to_vec();
    newest_first.sort_unstable_by_key(|dated| std::cmp::Reverse(dated.generation));
    let day = |dated: &Dated| {
        let date = dated.time.to_zoned(TimeZone::UTC).date();
        (i32::from(date.year()), i32::from(date.day_of_year()))
    };
    let week = |dated: &Dated| {
        let date = dated.time.to_zoned(TimeZone::UTC).date().iso_week_date();
        (i32::from(date.year()), i32::from(date.week()))
    };
    let number = |dated: &Dated| dated.generation;
    let last = (policy.keep_last as usize).max(1);
    let mut kept: BTreeSet<_> = newest_first.iter().take(last).map(number).collect();
    kept.extend(last_of_each(&newest_first, policy.keep_daily, day));
    kept.extend(last_of_each(&newest_first, policy.keep_weekly, week));
    kept
}

fn last_of_each(
    newest_first: &[Dated],
    periods: u32,
    period: impl Fn(&Dated) -> (i32, i32),
) -> Vec<Generation> {
    let mut seen = BTreeSet::new();
    newest_first
        .iter()
        .filter(|dated| seen.insert(period(dated)))
        .take(periods as usize)
        .map(|dated| dated.generation)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64, time: &str) -> Dated {
        Dated {
            generation: Generation(generation),
            time: time.parse().unwrap(),
        }
    }

    fn policy(keep_last: u32, keep_daily: u32, keep_weekly: u32) -> SnapshotPolicy {
        SnapshotPolicy {
            keep_last,
            keep_daily,
            keep_weekly,
            ..SnapshotPolicy::default()
        }
    }

    fn numbers(generations: &[Dated], policy: &SnapshotPolicy) -> Vec<u64> {
        kept(generations, policy).into_iter().map(|g| g.0).collect()
    }

    #[test]
    fn the_last_of_each_day_and_week_is_kept() {
        let history = [
            at(1, "2026-03-02T10:00:00Z"), // Monday of week 10
            at(2, "2026-03-02T23:59:59Z"),
            at(3, "2026-03-08T12:00:00Z"), // Sunday of week 10
            at(4, "2026-03-09T00:00:00Z"), // Monday of week 11
            at(5, "2026-03-10T08:00:00Z"),
            at(6, "2026-03-10T09:00:00Z"),
            at(7, "2026-03-10T10:00:00Z"),
        ];
        assert_eq!(numbers(&history, &policy(2, 0, 0)), [6, 7]);
        assert_eq!(numbers(&history, &policy(1, 3, 0)), [3, 4, 7]);
        assert_eq!(numbers(&history, &policy(1, 0, 2)), [3, 7]);
        assert_eq!(numbers(&history, &policy(1, 9, 9)), [2, 3, 4, 7]);
    }

    #[test]
    fn the_newest_is_kept_whatever_the_policy_says() {
        let history = [at(8, "2026-01-01T00:00:00Z"), at(9, "2020-01-01T00:00:00Z")];
        assert_eq!(numbers(&history, &policy(0, 0, 0)), [9]);
        assert!(kept(&[], &policy(3, 7, 4)).is_empty());
    }
}
