//! The order of one learner's stream, in memory while somebody watches or a turn runs. No I/O.

use std::collections::VecDeque;

use carrel_core::event::{Event, EventBody};
use carrel_core::{EventVersion, LeaseGeneration, TurnId};
use carrel_protocol::gateway::StreamEvent;

use super::Place;
use super::expand::{Said, expand};

/// The most events kept for readers that come back.
const ENTRIES_KEPT: usize = 4096;
/// The most bytes of text kept for readers that come back.
const BYTES_KEPT: usize = 512 * 1024;
/// Each lease of a turn counts its live steps from its own base: a later owner never uses a former one's ids.
const STEPS_OF_A_LEASE: u32 = 32;

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All that came after its place.
    Events(Vec<(Place, StreamEvent)>),
    /// Its place is no longer kept; durable events up to this version are in the store.
    Behind(EventVersion),
}

#[derive(Debug)]
pub(super) struct Log {
    /// The place of the newest event.
    last: Place,
    base: u64,
    entries: VecDeque<(Place, StreamEvent)>,
    bytes: usize,
    /// Every event after this place is in `entries`.
    floor: Place,
    /// What clients were told of the running attempt; `None` when that was not here.
    said: Option<String>,
    /// The turn whose live text is published here: its outcome waits for the last of it.
    relaying: Option<TurnId>,
    ended: Option<TurnId>,
}

impl Log {
    pub(super) fn new(version: EventVersion) -> Self {
        let last = Place::durable(version);
        Self {
            last,
            base: 0,
            entries: VecDeque::new(),
            bytes: 0,
            floor: last,
            said: None,
            relaying: None,
            ended: None,
        }
    }

    pub(super) fn version(&self) -> EventVersion {
        self.last.version
    }

    pub(super) fn has_ended(&self, turn: TurnId) -> bool {
        self.ended == Some(turn)
    }

    pub(super) fn said(&self) -> &str {
        self.said.as_deref().unwrap_or_default()
    }

    /// From now on live events are those of this lease.
    pub(super) fn lease(&mut self, lease: LeaseGeneration) {
        self.base = lease.0.saturating_sub(1) << STEPS_OF_A_LEASE;
    }

    /// The outcome of `turn` waits until its live text is published whole; `None` lets it pass.
    pub(super) fn relay(&mut self, turn: Option<TurnId>) {
        self.relaying = turn;
    }

    /// Appends what follows the newest version; `false` when an outcome has to wait or a version is missing.
    pub(super) fn append(&mut self, events: &[Event]) -> bool {
        for event in events {
            if event.version <= self.last.version {
                continue;
            }
            if event.version != self.last.version.next() || self.must_wait(&event.body) {
                return false;
            }
            let said = self.said.as_deref().map_or(Said::Unknown, Said::Text);
            let expanded = expand(event, said);
            self.follow(&event.body);
            self.last = Place::durable(event.version);
            for (place, event) in expanded {
                self.push(place, event);
            }
        }
        true
    }

    fn must_wait(&self, body: &EventBody) -> bool {
        let ends = matches!(
            body,
            EventBody::Done { .. } | EventBody::Failed { .. } | EventBody::Restarted { .. }
        );
        ends && self.relaying.is_some() && self.relaying == body.turn_id()
    }

    fn follow(&mut self, body: &EventBody) {
        match body {
            EventBody::Started { .. } | EventBody::Restarted { .. } => {
                self.said = Some(String::new());
            }
            EventBody::Done { turn_id, .. } | EventBody::Failed { turn_id, .. } => {
                self.ended = Some(*turn_id);
                // One that was stopped while it waited says nothing of the one that runs.
                if self.relaying.is_none() {
                    self.said = None;
                }
            }
            _ => {}
        }
    }

    fn next(&mut self) -> Place {
        self.last.step = self.last.step.max(self.base) + 1;
        self.last
    }

    /// Publishes a live event.
    pub(super) fn live(&mut self, event: StreamEvent) {
        match (&event, &mut self.said) {
            (StreamEvent::Delta { text, .. }, Some(said)) => said.push_str(text),
            (StreamEvent::Restart { .. }, said) => *said = Some(String::new()),
            _ => {}
        }
        let place = self.next();
        self.push(place, event);
    }

    fn push(&mut self, place: Place, event: StreamEvent) {
        self.bytes += size(&event);
        self.entries.push_back((place, event));
        while self.entries.len() > ENTRIES_KEPT || self.bytes > BYTES_KEPT {
            let Some((place, event)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= size(&event);
            self.floor = place;
        }
    }

    pub(super) fn after(&self, place: Place) -> Read {
        if place < self.floor {
            return Read::Behind(self.last.version);
        }
        let from = self.entries.partition_point(|(at, _)| *at <= place);
        Read::Events(self.entries.range(from..).cloned().collect())
    }

    /// The running attempt's text so far for a reader who has all durable events up to the newest: at places of its own,
    /// preceded by `restart` unless the reader is known to have no text of it.
    pub(super) fn text_so_far(&mut self, fresh: bool) -> Vec<(Place, StreamEvent)> {
        let Some(turn_id) = self.relaying else {
            return Vec::new();
        };
        let text = self.said().to_owned();
        let mut events = Vec::with_capacity(2);
        if !fresh {
            let reason = "the text so far follows whole".to_owned();
            events.push((self.next(), StreamEvent::Restart { turn_id, reason }));
        }
        if !text.is_empty() {
            events.push((self.next(), StreamEvent::Delta { turn_id, text }));
        }
        events
    }

    /// The place of the newest event.
    pub(super) fn last(&self) -> Place {
        self.last
    }
}

fn size(event: &StreamEvent) -> usize {
    const FIXED: usize = 96;
    FIXED
        + match event {
            StreamEvent::State { detail, .. } => detail.len(),
            StreamEvent::Delta { text, .. } => text.len(),
            StreamEvent::Tool { summary, .. } => summary.len(),
            StreamEvent::Restart { reason, .. } => reason.len(),
            StreamEvent::Done { reply, .. } => reply.text.len(),
            StreamEvent::Error { detail, .. } => detail.len(),
        }
}
