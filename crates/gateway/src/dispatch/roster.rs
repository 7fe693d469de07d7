//! The learners whose turns are run by this process now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrel_core::{LearnerId, TurnId};
use carrel_store::turns::Lease;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One learner whose turns are run here.
#[derive(Debug)]
pub(super) struct Entry {
    learner: LearnerId,
    /// Another turn may have come since the last look.
    again: AtomicBool,
    owned: Mutex<Option<Owned>>,
}

#[derive(Debug)]
struct Owned {
    turn: TurnId,
    lease: Lease,
    lost: CancellationToken,
}

impl Entry {
    pub(super) fn learner(&self) -> &LearnerId {
        &self.learner
    }

    fn owned(&self) -> MutexGuard<'_, Option<Owned>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its lease is renewed from now on; the token ends when it is lost.
    pub(super) fn own(&self, turn: TurnId, lease: Lease) -> CancellationToken {
        let lost = CancellationToken::new();
        *self.owned() = Some(Owned {
            turn,
            lease,
            lost: lost.clone(),
        });
        lost
    }

    pub(super) fn disown(&self) {
        *self.owned() = None;
    }
}

/// The learners whose turns are run by this process now.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: Mutex<HashMap<LearnerId, Arc<Entry>>>,
    count: watch::Sender<usize>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, HashMap<LearnerId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this learner's turns are run here. One whose last turn has just ended is looked at again: the hint may be of the next.
    pub(super) fn look_again(&self, learner: &LearnerId) -> bool {
        let entries = self.lock();
        let entry = entries.get(learner);
        if let Some(entry) = entry.filter(|entry| entry.owned().is_none()) {
            entry.again.store(true, Ordering::SeqCst);
        }
        entry.is_some()
    }

    /// Whether a turn of this learner runs now, and its lease is ours.
    pub(crate) fn is_running(&self, learner: &LearnerId) -> bool {
        self.lock()
            .get(learner)
            .is_some_and(|entry| entry.owned().is_some())
    }

    /// Enters a learner: `Some` for the one who runs its turns from now on. If somebody does already, that one looks again.
    pub(super) fn enter(&self, learner: &LearnerId) -> Option<Arc<Entry>> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(learner) {
            entry.again.store(true, Ordering::SeqCst);
            return None;
        }
        let entry = Arc::new(Entry {
            learner: learner.clone(),
            again: AtomicBool::new(false),
            owned: Mutex::new(None),
        });
        entries.insert(learner.clone(), Arc::clone(&entry));
        self.count.send_replace(entries.len());
        Some(entry)
    }

    /// Leaves, unless another turn may have come meanwhile.
    pub(super) fn leave(&self, entry: &Entry) -> bool {
        let mut entries = self.lock();
        if entry.again.swap(false, Ordering::SeqCst) {
            return false;
        }
        entries.remove(&entry.learner);
        self.count.send_replace(entries.len());
        true
    }

    /// Leaves when the process ends.
    pub(super) fn leave_for_good(&self, entry: &Arc<Entry>) {
        let mut entries = self.lock();
        if entries
            .get(&entry.learner)
            .is_some_and(|there| Arc::ptr_eq(there, entry))
        {
            entries.remove(&entry.learner);
            self.count.send_replace(entries.len());
        }
    }

    /// All leases that are held.
    pub(super) fn leases(&self) -> Vec<(TurnId, Lease)> {
        let entries = self.lock();
        let owned = entries.values().filter_map(|entry| {
            let owned = entry.owned();
            owned.as_ref().map(|owned| (owned.turn, owned.lease))
        });
        owned.collect()
    }

    /// Somebody else owns these turns now.
    pub(super) fn lose(&self, turns: &[TurnId]) {
        for entry in self.lock().values() {
            if let Some(owned) = entry.owned().as_ref().filter(|o| turns.contains(&o.turn)) {
                owned.lost.cancel();
            }
        }
    }

    /// Returns when nobody's turns are run here.
    pub(crate) async fn emptied(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}
