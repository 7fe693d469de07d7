//! The sidecar's clock: the one place that asks for the time of day.

use jiff::Timestamp;

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that others are given"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
