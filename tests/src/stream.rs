//! Server-sent events as a client reads them.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use serde_json::Value;
use sse_stream::SseStream;

/// After so long without an event a test has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The id of an event, `version.step`; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub u64, pub u64);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id.
    pub place: Place,
    /// Its name: `state`, `delta`, `done` …
    pub name: String,
    /// Its data.
    pub data: Value,
}

impl Event {
    /// A text of its data, or the empty one.
    pub fn text(&self, key: &str) -> &str {
        self.data[key].as_str().unwrap_or_default()
    }

    /// Whether it ends its turn.
    pub fn is_outcome(&self) -> bool {
        self.name == "done" || self.name == "error"
    }
}

type Source =
    Pin<Box<dyn futures::Stream<Item = Result<sse_stream::Sse, sse_stream::Error>> + Send>>;

/// An open stream of events, whose ids only rise.
pub struct Stream {
    source: Source,
    last: Option<Place>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(answer: reqwest::Response, after: Option<Place>) -> Self {
        let source = SseStream::from_bytes_stream(answer.bytes_stream());
        Self {
            source: Box::pin(source),
            last: after,
        }
    }

    /// The id of the last event that was read, or after which the stream begins.
    pub fn last(&self) -> Option<Place> {
        self.last
    }

    /// The next event; `None` when the stream ended or broke.
    ///
    /// # Errors
    /// When ids do not rise, or nothing comes for a minute.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.source.next());
            let Some(Ok(sse)) = next.await.context("nothing came for a minute")? else {
                return Ok(None);
            };
            let (Some(id), Some(name), Some(data)) = (sse.id, sse.event, sse.data) else {
                continue;
            };
            let (version, step) = id.split_once('.').context("an id has two parts")?;
            let place = Place(version.parse()?, step.parse()?);
            ensure!(
                Some(place) > self.last,
                "{name} has id {place} after {:?}",
                self.last
            );
            self.last = Some(place);
            return Ok(Some(Event {
                place,
                name,
                data: serde_json::from_str(&data)?,
            }));
        }
    }
}

/// The text that a reader of these events has: the deltas of a turn after its last `restart`, joined.
pub fn text_of(events: &[Event], turn: &str) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.text("turn_id") == turn) {
        match event.name.as_str() {
            "restart" => text.clear(),
            "delta" => text.push_str(event.text("text")),
            _ => {}
        }
    }
    text
}
