//! How fast an agent's reply is read. One that says more waits, as for any reader; nothing is lost and no turn fails for it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes a second, as they come: the longest text of a reply in one second, and a thousand times what a fast model writes.
const BYTES_PER_SECOND: u32 = 4 << 20;
/// As much as this is read at once, however fast it comes.
const BURST_BYTES: u32 = 1 << 20;

/// What was read of late.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was read will have been due at the plain rate.
    due: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            due: Instant::now(),
        }
    }

    /// Notes what was read.
    pub(super) fn read(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.due = self.due.max(Instant::now()) + time_of(bytes);
    }

    /// Waits until more may be read.
    ///
    /// # Cancel safety
    /// Safe: nothing changes by waiting.
    pub(super) async fn ready(&self) {
        let ahead = self.due.saturating_duration_since(Instant::now());
        if ahead > time_of(BURST_BYTES) {
            sleep_until(self.due - time_of(BURST_BYTES)).await;
        }
    }
}

fn time_of(bytes: u32) -> Duration {
    Duration::from_secs(1) * bytes / BYTES_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: u32, bytes: usize, pause: Duration) -> Duration {
        let (began, mut pace) = (Instant::now(), Pace::new());
        for _ in 0..pieces {
            pace.ready().await;
            pace.read(bytes);
            tokio::time::sleep(pause).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_much_waits_and_who_says_as_much_as_people_read_does_not() {
        let took = read(90, 100_000, Duration::ZERO).await;
        let plain = time_of(9_000_000 - BURST_BYTES);
        assert!(
            took + time_of(100_000) >= plain && took <= plain,
            "{took:?}"
        );
        let pause = Duration::from_millis(20);
        assert_eq!(read(90, 10_000, pause).await, pause * 90);
        assert_eq!(read(1, 1 << 20, Duration::ZERO).await, Duration::ZERO);
    }
}
