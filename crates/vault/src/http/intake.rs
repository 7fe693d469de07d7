//! What callers send: taken only from those who may, bounded in bytes over all of them, and ended when it does not go on.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use carrel_protocol::problem::{Code, Problem};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// The most of one: a pack is 16 MiB and what does not fit any more; a commit may carry the files of a reply.
const MOST: usize = 64 << 20;
/// The most that is held at once of all files that are sent, and of one more.
const FILES_ROOM: usize = 128 << 20;
/// The same of commits, which decide turns: they wait for no file.
const COMMITS_ROOM: usize = 64 << 20;
/// The unit in which room is given.
const UNIT: usize = 1 << 10;
/// Who comes while there is no room is told to come again after this.
const FOR_ROOM: Duration = Duration::from_secs(5);
/// What has been silent for so long, or has come so far behind the slowest line, is ended.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes a second of the slowest line that serves.
const SLOWEST: u32 = 64 << 10;
/// So much of what is refused goes by, for so long.
const GOES_BY: usize = 16 << 20;
const GOES_BY_FOR: Duration = Duration::from_secs(10);

/// Room for what callers send.
#[derive(Debug)]
pub(crate) struct Intake {
    room: Arc<Semaphore>,
    /// As much again as one may need, given whole to one who finds no room: where all hold a part and wait for more, that one
    /// comes to its end and gives back what it holds.
    overdraft: Arc<Semaphore>,
}

/// Something that was sent, in the room that it takes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Intake {
    /// For the files of repositories.
    pub(crate) fn of_files() -> Self {
        Self::of(FILES_ROOM)
    }

    /// For commits.
    pub(crate) fn of_commits() -> Self {
        Self::of(COMMITS_ROOM)
    }

    fn of(bytes: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(bytes / UNIT)),
            overdraft: Arc::new(Semaphore::new(MOST / UNIT)),
        }
    }

    /// Takes what comes. Only what has come takes room.
    pub(super) async fn take(&self, body: Body) -> Result<Content, Problem> {
        let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if told > MOST {
            return Err(Problem::new(Code::BodyTooLarge, ""));
        }
        let mut pieces = body.into_data_stream();
        let mut bytes = Vec::with_capacity(told);
        let (mut room, mut held) = (Vec::new(), 0);
        // Each piece gives the next one time, as much as it took on the slowest line.
        let mut patience = SILENCE;
        loop {
            let since = Instant::now();
            let come = timeout(patience, pieces.next()).await;
            let Some(piece) = come.map_err(|_| Problem::new(Code::RequestTimeout, ""))? else {
                break;
            };
            let broken = |error: axum::Error| Problem::new(Code::InvalidBody, error.to_string());
            let piece = piece.map_err(broken)?;
            patience = patience.saturating_sub(since.elapsed()) + passage(piece.len());
            patience = patience.min(SILENCE);
            let length = bytes.len() + piece.len();
            if length > MOST {
                return Err(Problem::new(Code::BodyTooLarge, ""));
            }
            let needed = length.div_ceil(UNIT);
            if needed > held {
                let more = self.room(needed - held).await?;
                held += more.num_permits();
                room.push(more);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Content {
            bytes: bytes.into(),
            _room: room,
        })
    }

    /// So much room, or the overdraft: all that its holder may come to need.
    async fn room(&self, units: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let of = |semaphore: &Arc<Semaphore>, units| {
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            Arc::clone(semaphore).acquire_many_owned(units)
        };
        let either = async {
            tokio::select! {
                biased;
                given = of(&self.room, units) => given,
                given = of(&self.overdraft, MOST / UNIT) => given,
            }
        };
        let Ok(Ok(given)) = timeout(FOR_ROOM, either).await else {
            tracing::warn!("too much is being sent at once: a caller was told to come again");
            return Err(Problem::new(Code::Unavailable, "too much is being sent"));
        };
        Ok(given)
    }
}

/// Lets what comes go by, as far as that is short: who is refused in the middle of sending would not hear why.
pub(super) async fn discard(body: Body) {
    let mut left = GOES_BY;
    let going_by = body.into_data_stream().try_for_each(|piece| {
        let fits = piece.len() <= left;
        left = left.saturating_sub(piece.len());
        let ended = axum::Error::new("too much");
        std::future::ready(if fits { Ok(()) } else { Err(ended) })
    });
    // It is refused whatever comes of this.
    let _ = timeout(GOES_BY_FOR, going_by).await;
}

/// What so many bytes take on the slowest line.
fn passage(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64) / SLOWEST
}

#[cfg(test)]
mod tests;
