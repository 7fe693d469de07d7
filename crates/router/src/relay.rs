//! A streamed answer: whole events pass byte by byte, the meter watches, the money is settled before the client sees
//! the end. The relay goes on without its client, for a while, to learn what the call cost.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use carrel_llm::failure::ping;
use carrel_llm::meter::{Meter, Progress};
use carrel_llm::sse::Splitter;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use crate::answer::set_named;
use crate::call::Call;
use crate::metrics::CallResult;
use crate::options::Timeouts;
use crate::upstream::{self, Answer, Error};

/// Pieces that a slow client may leave waiting.
const QUEUE: usize = 64;
/// A longer event is no event.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// How long the end of the body is waited for after the last event, so that the connection can be used again.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// Starts the relay on the tracker; the answer's body is its output.
pub(crate) fn start(call: Call, answer: Answer, timeouts: Timeouts) -> Response {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut response = Body::from_stream(ReceiverStream::new(receiver)).into_response();
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    set_named(&mut response, "x-accel-buffering", "no");
    let relay = Relay {
        meter: Meter::new(call.dialect),
        splitter: Splitter::default(),
        body: answer.body,
        client: Some(sender),
        ends_at: Instant::now() + timeouts.call,
        first_token: false,
        timeouts,
        call,
    };
    let tracker = relay.call.service.shared.tracker.clone();
    tracker.spawn(relay.run().in_current_span());
    response
}

struct Relay {
    call: Call,
    timeouts: Timeouts,
    meter: Meter,
    splitter: Splitter,
    body: BoxStream<'static, Result<Bytes, Error>>,
    /// `None` when it has left.
    client: Option<mpsc::Sender<Result<Bytes, Infallible>>>,
    ends_at: Instant,
    first_token: bool,
}

/// What comes next.
enum Next {
    Piece(Bytes),
    End,
    Error(Error),
    Silence,
    ClientLeft,
    Overdue,
}

impl Relay {
    async fn run(mut self) {
        let (last, error) = self.pass_events().await;
        let shared = self.call.service.shared.clone();
        self.call.hold.settle(&shared, &self.meter).await;
        self.call
            .count(match (&error, &self.client, self.meter.progress()) {
                (_, None, _) => CallResult::ClientLeft,
                (Some(_), Some(_), _) => CallResult::Failed,
                (None, Some(_), Progress::Failed) => CallResult::Refused,
                (None, Some(_), Progress::Open | Progress::Complete) => CallResult::Ok,
            });
        self.send(last).await;
        if let Some(error) = error {
            let failure = error.failure(&self.call.target);
            let event = failure.event(self.call.dialect, &self.call.id.to_string());
            self.send(event.into_bytes()).await;
        }
        // The client's answer ends here; what follows is for the connection's sake.
        self.client = None;
        let _ = upstream::next(&mut self.body, LAST_BYTES).await;
    }

    /// Passes events on until the answer ends; gives its last bytes, still unsent, and what went wrong.
    async fn pass_events(&mut self) -> (Vec<u8>, Option<Error>) {
        let mut quiet_since = Instant::now();
        loop {
            match self.next(quiet_since).await {
                Next::Piece(piece) => {
                    quiet_since = Instant::now();
                    self.splitter.push(&piece);
                    let whole = self.take_events();
                    if self.meter.progress() != Progress::Open {
                        return (whole, None);
                    }
                    if self.splitter.waiting() > MAX_EVENT_BYTES {
                        return (whole, Some(Error::Broken));
                    }
                    self.send(whole).await;
                }
                Next::End => return self.end(),
                Next::Error(error) => return (Vec::new(), Some(error)),
                Next::Silence if quiet_since.elapsed() >= self.timeouts.idle => {
                    return (Vec::new(), Some(Error::Timeout));
                }
                Next::Silence => self.send(ping(self.call.dialect).as_bytes().to_vec()).await,
                Next::ClientLeft => {
                    self.client = None;
                    self.ends_at = self.ends_at.min(Instant::now() + self.timeouts.drain);
                }
                Next::Overdue => return (Vec::new(), Some(Error::Timeout)),
            }
        }
    }

    async fn next(&mut self, quiet_since: Instant) -> Next {
        let silence = quiet_since.elapsed();
        let until_idle = self.timeouts.idle.saturating_sub(silence);
        let wait = until_idle.min(self.timeouts.ping);
        let client_left = async {
            match &self.client {
                Some(client) => client.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            piece = futures::StreamExt::next(&mut self.body) => match piece {
                Some(Ok(piece)) => Next::Piece(piece),
                Some(Err(error)) => Next::Error(error),
                None => Next::End,
            },
            () = client_left => Next::ClientLeft,
            () = tokio::time::sleep_until(self.ends_at) => Next::Overdue,
            () = tokio::time::sleep(wait) => Next::Silence,
        }
    }

    /// The bytes of the events that are whole.
    fn take_events(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.splitter.next_frame() {
            let is_bare_usage = self.meter.pass(&frame);
            if self.meter.has_content() && !self.first_token {
                self.first_token = true;
                let waited = self.call.sent.elapsed().as_secs_f64();
                self.call
                    .service
                    .shared
                    .ports
                    .metrics
                    .time_to_first_token
                    .observe(waited);
            }
            if !(is_bare_usage && self.call.hides_usage) {
                bytes.extend_from_slice(&frame.raw);
            }
        }
        bytes
    }

    /// The connection has ended: what was left without its blank line may be the last event.
    fn end(&mut self) -> (Vec<u8>, Option<Error>) {
        let rest = std::mem::take(&mut self.splitter).into_rest();
        self.splitter.push(&rest);
        self.splitter.push(b"\n\n");
        let _ = self.take_events();
        let is_whole = self.meter.progress() != Progress::Open || self.meter.has_output();
        if is_whole {
            (rest, None)
        } else {
            (Vec::new(), Some(Error::Broken))
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if let Some(client) = &self.client {
            // A client that takes nothing for so long has left.
            let sent = client
                .send_timeout(Ok(Bytes::from(bytes)), self.timeouts.idle)
                .await;
            if sent.is_err() {
                self.client = None;
                self.ends_at = self.ends_at.min(Instant::now() + self.timeouts.drain);
            }
        }
    }
}
