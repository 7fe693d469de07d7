//! What an agent writes to its standard error: the end of it is kept for the operator, the rest is let go. It is read
//! slowly on purpose: who writes without end waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::task::TaskTracker;

use crate::link::Error;

/// How much is kept.
const KEPT_BYTES: usize = 1024;
/// How much is read at once, and how long after it nothing is.
const CHUNK_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(2);

/// The end of what an agent wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentLog(Arc<Mutex<VecDeque<u8>>>);

impl AgentLog {
    /// Reads a pipe until it ends.
    pub(crate) fn follow(&self, pipe: OwnedFd, tasks: &TaskTracker) -> Result<(), Error> {
        let mut pipe = pipe::Receiver::from_owned_fd(pipe).map_err(Error::Socket)?;
        let log = self.clone();
        tasks.spawn(async move {
            loop {
                // Nothing is held while nothing comes.
                if pipe.readable().await.is_err() {
                    return;
                }
                let mut chunk = vec![0; CHUNK_BYTES];
                match pipe.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => log.keep(&chunk[..length]),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(())
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&bytes[bytes.len().saturating_sub(KEPT_BYTES)..]);
        let over = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..over);
    }

    /// What is said of its end, with the last line of it when there is one.
    pub(crate) fn last_words(&self, of: &str) -> String {
        match self.last_line() {
            line if line.is_empty() => format!("{of}; it wrote nothing to its standard error"),
            line => format!("{of}; its last words: {line}"),
        }
    }

    /// The last line of it.
    fn last_line(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(300).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_said_nothing_has_no_last_words() {
        let log = AgentLog::default();
        assert_eq!(
            log.last_words("it ended"),
            "it ended; it wrote nothing to its standard error"
        );
        log.keep(b"no such file\n\n");
        assert_eq!(
            log.last_words("it ended"),
            "it ended; its last words: no such file"
        );
    }
}
