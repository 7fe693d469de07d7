//! What callers send: taken only from those who may, bounded in bytes over all of them, and in the time of each.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use carrel_protocol::problem::{Code, Problem};
use futures::TryStreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most of one: a pack is 16 MiB and what does not fit any more; a commit may carry the files of a reply.
const MOST: usize = 64 << 20;
/// The most of all that are held at once. Who comes then waits for room.
const ROOM: usize = 128 << 20;
/// The unit in which room is given.
const UNIT: usize = 1 << 10;
/// What does not come is not waited for longer, besides what its length takes on the slowest line.
const QUIET: Duration = Duration::from_secs(30);
/// Bytes a second of the slowest line that serves.
const SLOWEST: usize = 64 << 10;

/// Room for what callers send.
#[derive(Debug)]
pub(crate) struct Intake(Arc<Semaphore>);

/// Something that was sent, in the room that it takes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Default for Intake {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM / UNIT)))
    }
}

impl Intake {
    /// Takes what comes, when there is room for it.
    pub(super) async fn take(&self, headers: &HeaderMap, body: Body) -> Result<Content, Problem> {
        let told = headers.get(CONTENT_LENGTH);
        let told = told.and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = told.unwrap_or(MOST);
        if length > MOST {
            return Err(Problem::new(Code::BodyTooLarge, ""));
        }
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).acquire_many_owned(units).await;
        let room = room.map_err(|_| Problem::new(Code::Unavailable, ""))?;
        let come = timeout(QUIET + passage(length), to_bytes(body, length)).await;
        let come = come.map_err(|_| Problem::new(Code::RequestTimeout, ""))?;
        Ok(Content {
            bytes: come.map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?,
            _room: room,
        })
    }
}

/// Lets what comes go by: who is refused in the middle of sending would not hear why.
pub(super) async fn discard(body: Body) {
    let mut left = MOST;
    let going_by = body.into_data_stream().try_for_each(|piece| {
        let fits = piece.len() <= left;
        left = left.saturating_sub(piece.len());
        let ended = axum::Error::new("too much");
        std::future::ready(if fits { Ok(()) } else { Err(ended) })
    });
    // It is refused whatever comes of this.
    let _ = timeout(QUIET + passage(MOST), going_by).await;
}

fn passage(bytes: usize) -> Duration {
    Duration::from_secs((bytes / SLOWEST) as u64)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures::{FutureExt as _, stream};

    use super::*;

    fn of(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    #[tokio::test]
    async fn what_all_send_at_once_fits_into_the_room() {
        let intake = Intake::default();
        let unknown = HeaderMap::new();
        for headers in [of(1), unknown] {
            let mut held = Vec::new();
            for _ in 0..ROOM / MOST {
                let taken = intake.take(&of(MOST), Body::from("some")).now_or_never();
                held.push(taken.expect("there is room").unwrap());
            }
            let mut next = Box::pin(intake.take(&headers, Body::from("x")));
            assert!(next.as_mut().now_or_never().is_none(), "there is no room");
            held.pop();
            assert_eq!(next.await.unwrap().bytes, "x");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_takes_no_room_for_ever() {
        let intake = Intake::default();
        let never = Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>());
        let given_up = intake.take(&of(MOST), never).await.unwrap_err();
        assert_eq!(given_up.code, Code::RequestTimeout);
        assert_eq!(intake.0.available_permits(), ROOM / UNIT);
    }

    #[tokio::test]
    async fn more_than_was_told_and_more_than_the_most_are_refused() {
        let intake = Intake::default();
        let refused = intake.take(&of(3), Body::from("four")).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidBody);
        let refused = intake.take(&of(MOST + 1), Body::empty()).await;
        assert_eq!(refused.unwrap_err().code, Code::BodyTooLarge);
    }
}
