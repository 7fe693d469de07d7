//! One turn's events as they come, each once, whatever becomes of the connection and the server meanwhile.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_core::TurnId;
use carrel_protocol::gateway::{PostMessage, StreamEvent};
use futures::{Stream, StreamExt as _};
use reqwest::{Method, Response};
use sse_stream::{Sse, SseStream};
use uuid::Uuid;

use crate::cli;
use crate::client::Client;
use crate::command::learner::segment;
use crate::exit::{Failure, Kind, kind_of};
use crate::output;

/// A server that was lost is waited for this long.
const PATIENCE: Duration = Duration::from_mins(2);
/// The pause before the first new try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A comment comes every 15 s: a connection that is silent for so long is lost.
const SILENCE: Duration = Duration::from_secs(45);

type Events = Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>>>>;

/// A message that is sent once, and the turn that comes of it.
pub(super) struct Turn<'a> {
    learner: &'a str,
    message: PostMessage,
    flags: &'a cli::Client,
    /// However often the message goes over the wire, it is one.
    key: String,
    open: Option<Events>,
    /// The last event's id, and the turn that it was of.
    seen: Option<(String, TurnId)>,
    lost: Option<Lost>,
}

/// A connection that broke off.
struct Lost {
    since: Instant,
    pause: Duration,
}

impl<'a> Turn<'a> {
    pub(super) fn new(learner: &'a str, text: &str, flags: &'a cli::Client) -> Self {
        Self {
            learner,
            message: PostMessage {
                text: text.to_owned(),
                attachments: Vec::new(),
            },
            flags,
            key: Uuid::now_v7().to_string(),
            open: None,
            seen: None,
            lost: None,
        }
    }

    /// The next event, and its data as it came. Not to be called after the turn's outcome.
    pub(super) async fn next(&mut self) -> anyhow::Result<(StreamEvent, String)> {
        loop {
            let Some(events) = &mut self.open else {
                match self.connect().await {
                    Ok(response) => self.open = Some(events(response)),
                    Err(error) if kind_of(&error) == Kind::Away => self.wait(&error).await?,
                    Err(error) => return Err(error),
                }
                continue;
            };
            let Some(Ok(sse)) = events.next().await else {
                self.open = None;
                self.wait(&anyhow::anyhow!("the stream broke off")).await?;
                continue;
            };
            let (Some(id), Some(data)) = (sse.id, sse.data) else {
                continue;
            };
            let event: StreamEvent = serde_json::from_str(&data).context("reading the stream")?;
            let turn = event.turn_id();
            let is_ours = self.seen.as_ref().is_none_or(|(_, ours)| *ours == turn);
            self.lost = None;
            if is_ours {
                self.seen = Some((id, turn));
                return Ok((event, data));
            }
        }
    }

    /// Sends the message, again by the same key until something of its turn was seen; then goes on after that.
    async fn connect(&self) -> anyhow::Result<Response> {
        // Found anew each time: a server that was started again may have another port.
        let server = Client::find(self.flags).await?;
        let learner = segment(self.learner);
        let request = match &self.seen {
            None => server
                .request(Method::POST, &format!("/v1/learners/{learner}/messages"))
                .header("idempotency-key", &self.key)
                .json(&self.message),
            Some((id, _)) => server
                .request(Method::GET, &format!("/v1/learners/{learner}/events"))
                .header("last-event-id", id),
        };
        let answer = server.answer(request.header("accept", "text/event-stream"));
        let silent = |_| Failure::new(Kind::Away, "the server does not answer");
        tokio::time::timeout(SILENCE, answer)
            .await
            .map_err(silent)?
    }

    /// A pause before the next try, longer each time; an error when there were enough.
    async fn wait(&mut self, why: &anyhow::Error) -> anyhow::Result<()> {
        let lost = self.lost.get_or_insert_with(|| {
            output::talk(&format!("{why}; trying again…"));
            Lost {
                since: Instant::now(),
                pause: FIRST_PAUSE,
            }
        });
        if lost.since.elapsed() > PATIENCE {
            let logs = self
                .flags
                .command(&format!("learner logs {}", self.learner));
            let message = format!(
                "{why}, and it was tried for {} s; the turn goes on when the server runs, and '{logs}' shows it",
                PATIENCE.as_secs()
            );
            return Err(Failure::new(Kind::TimedOut, message).into());
        }
        tokio::time::sleep(lost.pause).await;
        lost.pause = (lost.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// The answer's events, which end when it breaks off or falls silent.
fn events(response: Response) -> Events {
    let pieces = futures::stream::unfold(response, async |mut response| {
        let piece = tokio::time::timeout(SILENCE, response.chunk()).await;
        let piece = piece.ok()?.ok()??;
        Some((Ok::<_, Infallible>(piece), response))
    });
    Box::pin(SseStream::from_bytes_stream(pieces))
}
