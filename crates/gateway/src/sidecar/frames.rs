//! An answer of one frame a line (NDJSON), in which an empty line comes at least every [`LINE_EVERY`].

use std::marker::PhantomData;
use std::time::Duration;

use bytes::BytesMut;
use carrel_protocol::sidecar::LINE_EVERY;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::Error;

/// The longest line: a committed frame holds the whole reply.
const LINE_BYTES: usize = 32 << 20;
/// Whoever said nothing for so long is not heard any more, though the connection stays.
const SILENT_FOR: Duration = LINE_EVERY.saturating_mul(3);

/// Frames as they arrive.
#[derive(Debug)]
pub(crate) struct Frames<T> {
    body: Incoming,
    buffer: BytesMut,
    /// What of the buffer was searched for a line's end.
    searched: usize,
    /// When anything came last, an empty line too.
    heard: Instant,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Frames<T> {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            heard: Instant::now(),
            kind: PhantomData,
        }
    }

    /// The next frame. Cancel safe: what was read stays.
    ///
    /// # Errors
    /// [`Error::Lost`] when the connection ended, also without any frame left, or brings nothing any more.
    pub(crate) async fn next(&mut self) -> Result<T, Error> {
        loop {
            if let Some(line) = self.line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|error| Error::Nonsense(error.to_string()));
            }
            if self.buffer.len() > LINE_BYTES {
                return Err(Error::Nonsense("a frame is too long".to_owned()));
            }
            let frame = timeout_at(self.heard + SILENT_FOR, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::Lost("it is silent".to_owned()))?;
            let frame = frame.ok_or_else(|| Error::Lost("the answer ended".to_owned()))?;
            let frame = frame.map_err(|error| Error::Lost(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                self.heard = Instant::now();
                self.buffer.extend_from_slice(data);
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let unsearched = self.buffer.get(self.searched..)?;
        let Some(at) = unsearched.iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + at + 1);
        self.searched = 0;
        Some(line)
    }
}
