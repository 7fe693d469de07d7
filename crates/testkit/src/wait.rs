//! Waiting for what shows itself by no event.

use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than anything takes on a machine that is busy with other things, too.
const LONG: Duration = Duration::from_mins(1);

/// Looks until it holds; fails the test, saying what was waited for, when that takes a minute.
pub async fn until<F>(what: &str, holds: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let seen = async {
        while !holds().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let seen = tokio::time::timeout(LONG, seen).await;
    assert!(seen.is_ok(), "never seen: {what}");
}
