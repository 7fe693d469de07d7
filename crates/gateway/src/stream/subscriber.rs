//! One client's way through a learner's stream: from the store where it is behind, then from the hub, each event once.

use std::collections::VecDeque;
use std::sync::Arc;

use carrel_core::{EventVersion, TurnId};
use carrel_protocol::gateway::{StreamEvent, TurnStep};
use carrel_store::{Result, SharedStore};
use tokio::sync::watch;

use super::expand::{Said, expand};
use super::log::Read;
use super::turn_log::PAGE;
use super::{Hub, Place};

/// Where a client's stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    /// After the event with this id.
    After(Place),
    /// At the beginning of one turn, and only it, until it ends.
    Turn(TurnId, EventVersion),
}

/// One client's way through a learner's stream.
pub(crate) struct Subscriber {
    hub: Arc<Hub>,
    store: SharedStore,
    grown: watch::Receiver<()>,
    place: Place,
    /// The client is known to have no text of the running attempt.
    fresh: bool,
    only: Option<TurnId>,
    over: bool,
    ready: VecDeque<(Place, StreamEvent)>,
}

impl Subscriber {
    pub(crate) fn new(hub: Arc<Hub>, store: SharedStore, from: From) -> Self {
        let (place, only) = match from {
            From::After(place) => (place, None),
            From::Turn(turn, queued) => (Place::before(queued), Some(turn)),
        };
        // An id from before this learner was erased and made anew: its life begins at the beginning.
        let place = if place.version > hub.version() && only.is_none() {
            Place::default()
        } else {
            place
        };
        Self {
            grown: hub.grown(),
            fresh: only.is_some() || place == Place::default(),
            hub,
            store,
            place,
            only,
            over: false,
            ready: VecDeque::new(),
        }
    }

    /// The next event; `None` when the stream is over or the store is away (the client comes back with its last id).
    pub(crate) async fn next(&mut self) -> Option<(Place, StreamEvent)> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            if self.over || self.hub.closed().is_cancelled() {
                return None;
            }
            self.grown.mark_unchanged();
            match self.hub.after(self.place) {
                Read::Events(events) if events.is_empty() => {
                    let closed = self.hub.closed().clone();
                    tokio::select! {
                        () = closed.cancelled() => return None,
                        grown = self.grown.changed() => grown.ok()?,
                    }
                }
                Read::Events(events) => {
                    for (place, event) in events {
                        self.give(place, event);
                    }
                }
                Read::Behind(version) => {
                    if let Err(error) = self.read_store(version).await {
                        tracing::warn!(learner.id = %self.hub.learner(), %error, "a stream ends early");
                        return None;
                    }
                }
            }
        }
    }

    fn give(&mut self, place: Place, event: StreamEvent) {
        if place <= self.place || self.over {
            return;
        }
        self.place = place;
        let turn = event.turn_id();
        if self.only.is_some_and(|only| only != turn) {
            return;
        }
        match &event {
            StreamEvent::Restart { .. } => self.fresh = true,
            StreamEvent::Delta { .. } => self.fresh = false,
            StreamEvent::Done { .. } | StreamEvent::Error { .. } => {
                self.over = self.only.is_some();
            }
            StreamEvent::State {
                state: TurnStep::Running,
                ..
            } if place.step == 0 => self.fresh = true,
            StreamEvent::State { .. } | StreamEvent::Tool { .. } => {}
        }
        self.ready.push_back((place, event));
    }

    async fn read_store(&mut self, until: EventVersion) -> Result<()> {
        if self.place.version < until {
            let learner = self.hub.learner();
            let page = self.store.events(learner, self.place.version, PAGE).await?;
            for event in page.iter().take_while(|event| event.version <= until) {
                let said = if self.fresh {
                    Said::Text("")
                } else {
                    Said::Unknown
                };
                for (place, event) in expand(event, said) {
                    self.give(place, event);
                }
                self.place = self.place.max(Place::durable(event.version));
            }
            if page.is_empty() {
                // The log is ahead of what can be read: the learner was erased meanwhile.
                self.over = true;
            }
            return Ok(());
        }
        if let Some((events, place)) = self.hub.text_so_far(until, self.fresh) {
            for (place, event) in events {
                self.give(place, event);
            }
            self.place = self.place.max(place);
        }
        Ok(())
    }
}
