//! That a learner has a keeper. However the keeper ends, its handle goes, so that the next wish starts another.

use std::sync::Arc;

use carrel_core::LearnerId;

use super::Shared;
use crate::learner::Handle;

/// A learner's entry among those that are kept. Dropping it removes the entry, and says so when a panic did it.
pub(super) struct Kept {
    shared: Arc<Shared>,
    id: LearnerId,
    handle: Arc<Handle>,
}

impl Kept {
    pub(super) fn new(shared: Arc<Shared>, id: LearnerId, handle: Arc<Handle>) -> Self {
        Self { shared, id, handle }
    }

    pub(super) fn id(&self) -> LearnerId {
        self.id.clone()
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Removes the entry, unless a wish came after the last look: that must not be left lying.
    pub(super) fn rests(&self) -> bool {
        let mut keepers = self.shared.lock();
        let nudged = std::pin::pin!(self.handle.nudge.notified()).enable();
        if !nudged {
            keepers.remove(&self.id);
        }
        !nudged
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(learner.id = %self.id, "a learner's keeper panicked; the next who asks for the learner starts another");
        }
        let mut keepers = self.shared.lock();
        let is_ours = |there: &Arc<Handle>| Arc::ptr_eq(there, &self.handle);
        if keepers.get(&self.id).is_some_and(is_ours) {
            keepers.remove(&self.id);
        }
        drop(keepers);
        // Whoever waits for its end waits no longer.
        self.handle.sidecar.send_replace(None);
    }
}
