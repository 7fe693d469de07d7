//! One learner's stream while it matters: its log, and who is to be told of changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use carrel_core::event::Event;
use carrel_core::{EventVersion, LearnerId, LeaseGeneration, TurnId};
use carrel_protocol::gateway::StreamEvent;
use carrel_store::{Result, SharedStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hubs::Hubs;
use super::log::{Log, Read};
use super::{Place, turn_log::PAGE};

/// One learner's stream. Lives while a turn runs or a client listens.
#[derive(Debug)]
pub(crate) struct Hub {
    learner: LearnerId,
    log: Mutex<Log>,
    /// The log has grown.
    grown: watch::Sender<()>,
    /// Something about the learner changed in store or fleet.
    hints: watch::Sender<()>,
    /// Somebody is about to read the store.
    looking: AtomicBool,
    closed: CancellationToken,
    hubs: Weak<Hubs>,
}

impl Hub {
    pub(crate) fn new(learner: LearnerId, version: EventVersion, hubs: Weak<Hubs>) -> Self {
        Self {
            learner,
            log: Mutex::new(Log::new(version)),
            grown: watch::Sender::new(()),
            hints: watch::Sender::new(()),
            looking: AtomicBool::new(false),
            closed: CancellationToken::new(),
            hubs,
        }
    }

    pub(crate) fn learner(&self) -> &LearnerId {
        &self.learner
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of changes to the log.
    pub(crate) fn grown(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// Tells that something about the learner may have changed.
    pub(crate) fn hints(&self) -> watch::Receiver<()> {
        self.hints.subscribe()
    }

    pub(crate) fn hint(&self) {
        self.hints.send_replace(());
    }

    /// The turn that ran here is let go: who reads here looks for its next owner.
    pub(crate) fn let_go(&self) {
        self.lock().let_go();
        self.grown.send_replace(());
    }

    /// Ends when the learner is erased.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn version(&self) -> EventVersion {
        self.lock().version()
    }

    /// A client's place in this stream: the one that its id names, or the beginning when the id is of an earlier life of the
    /// learner, who was erased and made anew.
    pub(crate) async fn known(&self, store: &SharedStore, place: Place) -> Result<Place> {
        if place.version <= self.version() {
            return Ok(place);
        }
        // An outcome that waits for its live text here is in the store all the same.
        let before = EventVersion(place.version.0 - 1);
        let there = store.events(&self.learner, before, 1).await?;
        Ok(if there.is_empty() {
            Place::default()
        } else {
            place
        })
    }

    pub(super) fn is_void(&self, place: Place) -> bool {
        self.lock().is_void(place)
    }

    pub(super) fn after(&self, place: Place) -> Read {
        self.lock().after(place)
    }

    /// The text so far for a reader at `version`, with the place it stands at then; `None` when durable events came meanwhile.
    pub(super) fn text_so_far(
        &self,
        version: EventVersion,
        fresh: bool,
    ) -> Option<(Vec<(Place, StreamEvent)>, Place)> {
        let mut log = self.lock();
        if log.version() != version {
            return None;
        }
        let events = log.text_so_far(fresh);
        Some((events, log.last()))
    }

    /// Reads what is new in the store into the log.
    pub(crate) async fn catch_up(&self, store: &SharedStore) -> Result<()> {
        loop {
            self.looking.store(false, Ordering::SeqCst);
            let after = self.version();
            let events = store.events(&self.learner, after, PAGE).await?;
            if !self.append(&events) || events.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    /// The same; it is tried again at the next hint or poll.
    pub(super) async fn follow(&self, store: &SharedStore) {
        if let Err(error) = self.catch_up(store).await {
            tracing::warn!(learner.id = %self.learner, %error, "a stream is behind");
        }
    }

    /// Whether the caller should read the store: not when somebody else is about to.
    pub(super) fn should_look(&self) -> bool {
        !self.looking.swap(true, Ordering::SeqCst)
    }

    fn append(&self, events: &[Event]) -> bool {
        let whole = self.lock().append(events);
        if !events.is_empty() {
            self.grown.send_replace(());
        }
        whole
    }

    /// Publishes a live event of the turn that is run here.
    pub(crate) fn live(&self, event: StreamEvent) {
        self.lock().live(event);
        self.grown.send_replace(());
    }

    /// From now on live events are those of this lease.
    pub(crate) fn lease(&self, lease: LeaseGeneration) {
        self.lock().lease(lease);
    }

    /// The outcome of `turn` waits until the guard is gone, so that it comes after the last live text.
    pub(crate) fn relay(&self, turn: TurnId) -> Relaying<'_> {
        self.lock().relay(Some(turn));
        Relaying(self)
    }

    /// What clients were told of the running attempt.
    pub(crate) fn said(&self) -> String {
        self.lock().said().to_owned()
    }

    /// Whether the turn's outcome was published.
    pub(crate) fn has_ended(&self, turn: TurnId) -> bool {
        self.lock().has_ended(turn)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(hubs) = self.hubs.upgrade() {
            hubs.forget(&self.learner);
        }
    }
}

/// While it is there, a turn's outcome waits for its live text.
#[derive(Debug)]
pub(crate) struct Relaying<'a>(&'a Hub);

impl Drop for Relaying<'_> {
    fn drop(&mut self) {
        self.0.lock().relay(None);
        self.0.hint();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carrel_core::OwnerId;
    use carrel_store::learners::NewLearner;
    use carrel_store::suite::fixture::message;
    use carrel_store_sqlite::SqliteStore;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[tokio::test]
    async fn a_place_after_an_outcome_that_waits_here_is_known_and_one_of_an_earlier_life_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        let store: SharedStore = Arc::new(store.expect("a store"));
        let new = NewLearner {
            id: "ada".parse().expect("a label"),
            class: "plain".parse().expect("a label"),
            aliases: Vec::new(),
        };
        store.create_learner(&new, second(1)).await.expect("made");
        let message = message(&new.id, "k");
        let turn_id = message.turn_id;
        store.accept(&message, second(2)).await.expect("accepted");
        let hub = Hub::new(new.id.clone(), EventVersion(0), Weak::new());
        hub.catch_up(&store).await.expect("read");
        let begun = hub.version();
        // Another gateway has brought it to its end, while this one, which was paused, believes that it runs here.
        let relaying = hub.relay(turn_id);
        let owner = OwnerId(Uuid::from_u128(4));
        let claimed = store.claim(&new.id, owner, second(3), second(9)).await;
        let claimed = claimed.expect("claimed").expect("it waits");
        let failure = carrel_store::turns::Failure {
            code: carrel_core::turn::FailureCode::AgentFailed,
            detail: String::new(),
            retryable: false,
            partial_text: String::new(),
            operator_reason: String::new(),
        };
        let timing = carrel_store::turns::Timing::default();
        let failed = store.fail(turn_id, claimed.lease, &failure, timing, second(4));
        failed.await.expect("written");
        hub.catch_up(&store).await.expect("read");
        assert_eq!(hub.version(), begun, "its outcome waits");
        let ended = Place::durable(begun.next());
        assert_eq!(hub.known(&store, ended).await.expect("read"), ended);
        let beyond = Place::durable(begun.next().next());
        let known = hub.known(&store, beyond).await.expect("read");
        assert_eq!(known, Place::default());
        drop(relaying);
    }
}
