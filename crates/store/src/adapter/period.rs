//! Days and months (UTC), as whole days since 1970: pure.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const SECONDS_PER_DAY: i64 = 86_400;
const SECONDS_PER_HOUR: i64 = 3_600;

/// The day of a time.
pub fn day(now: Timestamp) -> i64 {
    now.as_second().div_euclid(SECONDS_PER_DAY)
}

/// The days of a time's calendar month.
pub fn month(now: Timestamp) -> Range<i64> {
    let date = now.to_zoned(TimeZone::UTC).date();
    let first = date.first_of_month();
    let days = i64::from(first.days_in_month());
    let start = since_1970(first);
    start..start + days
}

/// When a day begins.
pub fn start(day: i64) -> Timestamp {
    Timestamp::from_second(day.saturating_mul(SECONDS_PER_DAY)).unwrap_or(Timestamp::MAX)
}

/// The whole hours that a span of time touches.
pub fn hours(since: Timestamp, until: Timestamp) -> Range<i64> {
    // A span that ends within a second ends in that second's hour.
    let last = until.as_second() + i64::from(until.subsec_nanosecond() > 0) - 1;
    hour(since.as_second())..hour(last) + 1
}

/// The hour of a second.
pub fn hour(second: i64) -> i64 {
    second.div_euclid(SECONDS_PER_HOUR)
}

fn since_1970(date: Date) -> i64 {
    let midnight = date
        .to_zoned(TimeZone::UTC)
        .expect("every date of a timestamp has a midnight in UTC");
    day(midnight.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    #[test]
    fn a_month_is_its_days() {
        let month = month(at("2028-02-29T23:59:59Z"));
        assert_eq!(start(month.start), at("2028-02-01T00:00:00Z"));
        assert_eq!(start(month.end), at("2028-03-01T00:00:00Z"));
        assert_eq!(month.end - month.start, 29);
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let late = day(at("2026-07-09T23:59:59.999Z"));
        assert_eq!(start(late + 1), at("2026-07-10T00:00:00Z"));
        assert_eq!(day(at("2026-07-10T00:00:00Z")), late + 1);
    }

    #[test]
    fn a_span_touches_the_hours_of_its_ends() {
        let hours = |since, until| {
            let touched = hours(at(since), at(until));
            touched.end - touched.start
        };
        assert_eq!(hours("2026-07-09T10:00:00Z", "2026-07-09T11:00:00Z"), 1);
        assert_eq!(hours("2026-07-09T10:59:59Z", "2026-07-09T11:00:00.5Z"), 2);
        assert_eq!(hours("2026-07-09T10:15:00Z", "2026-07-09T10:15:00.1Z"), 1);
    }
}
