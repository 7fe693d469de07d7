//! A turn's answer: one frame a line (NDJSON).

use bytes::BytesMut;
use carrel_protocol::sidecar::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Error;

/// The longest line: a committed frame holds the whole reply.
const LINE_BYTES: usize = 32 << 20;

/// A turn's frames as they arrive.
#[derive(Debug)]
pub(crate) struct Frames {
    body: Incoming,
    buffer: BytesMut,
    /// What of the buffer was searched for a line's end.
    searched: usize,
}

impl Frames {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next frame. Cancel safe: what was read stays.
    ///
    /// # Errors
    /// [`Error::Lost`] when the connection ended, also without any frame left.
    pub(crate) async fn next(&mut self) -> Result<Frame, Error> {
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
            let frame = self.body.frame().await;
            let frame = frame.ok_or_else(|| Error::Lost("the answer ended".to_owned()))?;
            let frame = frame.map_err(|error| Error::Lost(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
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
