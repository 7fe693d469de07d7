//! One client's way through a learner's stream: from the store where it is behind, then from the hub, each event once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::{EventVersion, OwnerId, TurnId};
use carrel_protocol::gateway::{StreamEvent, TurnStep};
use carrel_store::SharedStore;
use carrel_store::turns::Ownership;
use tokio::sync::watch;

use super::expand::{Said, expand};
use super::log::Read;
use super::relay::{Runs, Upstream, runs};
use super::turn_log::PAGE;
use super::{Hub, Place};
use crate::gateway::Shared;

/// Where a client's stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    /// After the event with this id, which is [known](Hub::known).
    After(Place),
    /// At the beginning of one turn, and only it, until it ends.
    Turn(TurnId, EventVersion),
}

/// What the client has of the running attempt's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing, that is known.
    Nothing,
    /// What the hub said, or who knows what before it came here.
    Here,
    /// What another gateway said: not what the hub would have.
    Elsewhere,
}

/// How often it is asked who runs a turn that nobody is known to run.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked whether one who says nothing runs the turn still.
const OWNER_EVERY: Duration = Duration::from_secs(2);

/// Before the owner is asked for once more.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// One client's way through a learner's stream.
pub(crate) struct Subscriber {
    hub: Arc<Hub>,
    store: SharedStore,
    /// Where other gateways' turns are asked for; `None`: for another gateway, which asked here.
    gateway: Option<Shared>,
    upstream: Option<Upstream>,
    grown: watch::Receiver<()>,
    place: Place,
    /// What the hub keeps does not begin at the client's place: durable events are read, then the text so far.
    is_behind: bool,
    heard: Heard,
    only: Option<TurnId>,
    over: bool,
    ready: VecDeque<(Place, StreamEvent)>,
}

impl Subscriber {
    /// A client's, from its place.
    pub(crate) fn new(gateway: Shared, hub: Arc<Hub>, from: From) -> Self {
        let (place, only) = match from {
            From::After(place) => (place, None),
            From::Turn(turn, queued) => (Place::before(queued), Some(turn)),
        };
        let fresh = only.is_some() || place == Place::default();
        let store = Arc::clone(&gateway.options.store);
        let is_alone = gateway.options.alone;
        let mut subscriber = Self::at(hub, store, place, fresh);
        // Where others give streams too, a client may have come from one that had no text for it.
        subscriber.is_behind |= !is_alone && !fresh && place.step == 0;
        Self {
            gateway: Some(gateway),
            only,
            ..subscriber
        }
    }

    /// From a place, of what is here alone.
    pub(crate) fn at(hub: Arc<Hub>, store: SharedStore, place: Place, fresh: bool) -> Self {
        Self {
            grown: hub.grown(),
            is_behind: hub.is_void(place),
            hub,
            store,
            gateway: None,
            upstream: None,
            place,
            heard: if fresh { Heard::Nothing } else { Heard::Here },
            only: None,
            over: false,
            ready: VecDeque::new(),
        }
    }

    /// Another gateway's, for one of its clients, which had durable events from the log: what was said between them it gets whole.
    pub(crate) fn for_another(
        hub: Arc<Hub>,
        store: SharedStore,
        place: Place,
        fresh: bool,
    ) -> Self {
        let mut subscriber = Self::at(hub, store, place, fresh);
        subscriber.is_behind |= place.step == 0;
        subscriber
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
            if self.upstream.is_some() {
                self.read_upstream().await;
                continue;
            }
            let version = self.hub.version();
            if self.is_behind && self.place.version < version {
                self.read_store(version).await?;
                continue;
            }
            if self.is_behind {
                self.read_text(version);
                continue;
            }
            match self.hub.after(self.place) {
                Read::Behind(kept) if self.place.version < kept.version => {
                    self.read_store(kept.version).await?;
                }
                // Live events are gone that came after the last durable one.
                Read::Behind(_) => self.is_behind = true,
                Read::Events(events) if events.is_empty() => self.wait().await?,
                Read::Events(_) if self.heard == Heard::Elsewhere => self.is_behind = true,
                Read::Events(events) => {
                    for (place, event) in events {
                        self.give(place, event);
                    }
                }
            }
        }
    }

    /// Waits for more, here or at whoever runs the learner's turn. `None`: the stream is over.
    async fn wait(&mut self) -> Option<()> {
        let asks = self.follow_owner().await;
        if self.upstream.is_some() {
            return Some(());
        }
        let closed = self.hub.closed().clone();
        tokio::select! {
            () = closed.cancelled() => None,
            grown = self.grown.changed() => grown.ok(),
            () = tokio::time::sleep(ASK_EVERY), if asks => Some(()),
        }
    }

    /// Turns to the gateway that runs the learner's turn, if it is another; whether that is to be asked again.
    async fn follow_owner(&mut self) -> bool {
        let Some(gateway) = self.gateway.as_ref() else {
            return false;
        };
        let learner = self.hub.learner();
        if gateway.options.alone || gateway.roster.is_running(learner) {
            return false;
        }
        match runs(gateway, learner).await {
            Runs::Nothing => false,
            Runs::Here | Runs::Unknown => true,
            Runs::At(owner, endpoint) => {
                let (place, fresh) = (self.place, self.is_fresh());
                self.upstream =
                    Upstream::open(gateway, learner, owner, &endpoint, place, fresh).await;
                true
            }
        }
    }

    /// What the owner says, until it says nothing more or another is the owner.
    async fn read_upstream(&mut self) {
        let Some(mut upstream) = self.upstream.take() else {
            return;
        };
        let closed = self.hub.closed().clone();
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                next = upstream.next() => {
                    let Some((place, event)) = next else {
                        break;
                    };
                    let has_ended = matches!(event, StreamEvent::Done { .. } | StreamEvent::Error { .. });
                    let is_text = matches!(event, StreamEvent::Delta { .. });
                    self.give(place, event);
                    if is_text {
                        self.heard = Heard::Elsewhere;
                    }
                    if has_ended {
                        return;
                    }
                    if !self.ready.is_empty() {
                        self.upstream = Some(upstream);
                        return;
                    }
                }
                () = tokio::time::sleep(OWNER_EVERY) => {
                    if !self.is_owner(upstream.owner).await {
                        break;
                    }
                }
            }
        }
        // One that ends gives no stream, and is the owner until its lease is out.
        tokio::time::sleep(AGAIN_AFTER).await;
        self.is_behind = true;
    }

    /// A store that is away says nothing about the owner.
    async fn is_owner(&self, owner: OwnerId) -> bool {
        let Some(gateway) = self.gateway.as_ref() else {
            return false;
        };
        let found = gateway
            .options
            .store
            .owner(self.hub.learner(), gateway.now());
        !matches!(found.await, Ok(found) if found != Ownership::Held(owner))
    }

    fn is_fresh(&self) -> bool {
        self.heard == Heard::Nothing
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
            StreamEvent::Restart { .. } => self.heard = Heard::Nothing,
            StreamEvent::Delta { .. } => self.heard = Heard::Here,
            StreamEvent::Done { .. } | StreamEvent::Error { .. } => {
                self.over = self.only.is_some();
                if self.heard == Heard::Elsewhere {
                    self.heard = Heard::Here;
                }
            }
            StreamEvent::State {
                state: TurnStep::Running,
                ..
            } if place.step == 0 => self.heard = Heard::Nothing,
            StreamEvent::State { .. } | StreamEvent::Tool { .. } => {}
        }
        self.ready.push_back((place, event));
    }

    /// Reads a page of durable events. `None`: the store is away.
    async fn read_store(&mut self, until: EventVersion) -> Option<()> {
        let learner = self.hub.learner();
        let page = self.store.events(learner, self.place.version, PAGE).await;
        let page = page
            .inspect_err(
                |error| tracing::warn!(learner.id = %learner, %error, "a stream ends early"),
            )
            .ok()?;
        for event in page.iter().take_while(|event| event.version <= until) {
            let said = if self.is_fresh() {
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
        Some(())
    }

    /// The running attempt's text so far, when all durable events were read.
    fn read_text(&mut self, version: EventVersion) {
        if let Some((events, place)) = self.hub.text_so_far(version, self.is_fresh()) {
            self.is_behind = false;
            for (place, event) in events {
                self.give(place, event);
            }
            self.place = self.place.max(place);
        }
    }
}
