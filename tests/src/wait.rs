//! Waiting for a condition, with an end.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(4);

/// Looks until there is an answer.
///
/// # Errors
/// After `within`, saying what was waited for.
pub async fn eventually<T, F>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
