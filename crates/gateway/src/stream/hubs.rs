//! The streams that matter now, by learner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use carrel_core::{EventVersion, LearnerId};
use carrel_store::{Result, SharedStore};
use futures::stream::{self, StreamExt as _};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Hub;

/// Streams that are read at the same time when all are.
const READ_AT_ONCE: usize = 64;

/// The streams that matter now. Holds no stream alive.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    hubs: Mutex<HashMap<LearnerId, Weak<Hub>>>,
}

impl Hubs {
    fn lock(&self) -> MutexGuard<'_, HashMap<LearnerId, Weak<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The learner's stream, if it matters now.
    pub(crate) fn find(&self, learner: &LearnerId) -> Option<Arc<Hub>> {
        self.lock().get(learner)?.upgrade()
    }

    fn all(&self) -> Vec<Arc<Hub>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The learner's stream, up to date with the store.
    pub(crate) async fn open(
        self: &Arc<Self>,
        learner: &LearnerId,
        store: &SharedStore,
    ) -> Result<Arc<Hub>> {
        let hub = if let Some(hub) = self.find(learner) {
            hub
        } else {
            let start = near_the_end(learner, store).await?;
            self.make(learner, start)
        };
        hub.catch_up(store).await?;
        Ok(hub)
    }

    fn make(self: &Arc<Self>, learner: &LearnerId, start: EventVersion) -> Arc<Hub> {
        let mut hubs = self.lock();
        if let Some(hub) = hubs.get(learner).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Arc::new(Hub::new(learner.clone(), start, Arc::downgrade(self)));
        hubs.insert(learner.clone(), Arc::downgrade(&hub));
        hub
    }

    /// Ends the streams of a learner that is erased.
    pub(crate) fn close(&self, learner: &LearnerId) {
        let hub = self.lock().remove(learner);
        if let Some(hub) = hub.as_ref().and_then(Weak::upgrade) {
            hub.closed().cancel();
        }
    }

    pub(super) fn forget(&self, learner: &LearnerId) {
        let mut hubs = self.lock();
        if hubs.get(learner).is_some_and(|hub| hub.strong_count() == 0) {
            hubs.remove(learner);
        }
    }

    /// Brings streams up to date when the store hints at a change.
    pub(crate) async fn follow(
        self: Arc<Self>,
        store: SharedStore,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) {
        let mut changes = store.changes();
        loop {
            let changed = tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.recv() => changed,
            };
            let hubs = match changed {
                Ok(learner) => self.find(&learner).into_iter().collect(),
                Err(RecvError::Lagged(_)) => self.all(),
                Err(RecvError::Closed) => return,
            };
            for hub in hubs {
                hub.hint();
                if !hub.should_look() {
                    continue;
                }
                let store = Arc::clone(&store);
                tracker.spawn(async move { hub.follow(&store).await });
            }
        }
    }

    /// Passes on what the fleet says of learners whose streams matter: one who hears for all who wait for theirs.
    pub(crate) async fn follow_fleet(
        self: Arc<Self>,
        mut changes: Receiver<LearnerId>,
        cancel: CancellationToken,
    ) {
        loop {
            let changed = tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.recv() => changed,
            };
            let hubs: Vec<_> = match changed {
                Ok(learner) => self.find(&learner).into_iter().collect(),
                Err(RecvError::Lagged(_)) => self.all(),
                Err(RecvError::Closed) => return,
            };
            for hub in hubs {
                hub.hint();
            }
        }
    }

    /// Looks at the store for all streams: what a lost hint would have said.
    pub(crate) async fn catch_up_all(&self, store: &SharedStore) {
        let hubs = self.all();
        // All of them first: a stream that cannot be read must not keep the others from hearing that they are over.
        for hub in &hubs {
            hub.hint();
        }
        stream::iter(&hubs)
            .for_each_concurrent(READ_AT_ONCE, async |hub| hub.follow(store).await)
            .await;
    }
}

/// A version close to the newest: that of the newest message's turn.
async fn near_the_end(learner: &LearnerId, store: &SharedStore) -> Result<EventVersion> {
    let newest = store.history(learner, None, 1).await?;
    Ok(newest.last().map(|turn| turn.version).unwrap_or_default())
}
