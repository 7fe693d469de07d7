//! Room at the live cap: for each learner that waits, the one that was quiet longest is put to sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::learner::LearnerState;
use carrel_protocol::token::Caller;
use jiff::Timestamp;

use super::Shared;
use crate::learner::Handle;

/// How long a sidecar may take to say how quiet its learner is; one that says nothing is not chosen.
const HELLO: Duration = Duration::from_secs(1);

impl Shared {
    /// The live cap is reached: the learner quiet longest is put to sleep.
    pub(crate) fn make_room(self: &Arc<Self>, wanting: &LearnerId) {
        let shared = Arc::clone(self);
        let wanting = wanting.clone();
        self.ground.tracker.spawn(async move {
            tokio::select! {
                () = shared.closing.cancelled() => {}
                () = shared.put_quietest_to_sleep(&wanting) => {}
            }
        });
    }

    async fn put_quietest_to_sleep(&self, wanting: &LearnerId) {
        let _alone = self.choosing.lock().await;
        let awake: Vec<_> = {
            let keepers = self.lock();
            let leaving = keepers.values().filter(|handle| is_leaving(handle)).count();
            if leaving >= self.admission.wanting_room() {
                return;
            }
            keepers
                .iter()
                .filter(|(id, handle)| {
                    *id != wanting
                        && handle.status.borrow().state == LearnerState::Ready
                        && !handle.make_room.load(Ordering::Acquire)
                })
                .map(|(id, handle)| (id.clone(), Arc::clone(handle)))
                .collect()
        };
        let mut quietest: Option<(Timestamp, Arc<Handle>)> = None;
        for (id, handle) in awake {
            let sidecar = handle.sidecar.borrow().clone();
            let epoch = handle.status.borrow().epoch;
            let now = self.ground.now();
            let token = self
                .ground
                .signer
                .caller_token(Caller::Controller, &id, epoch, now);
            let (Some(sidecar), Ok(token)) = (sidecar, token) else {
                continue;
            };
            let hello = tokio::time::timeout(HELLO, sidecar.hello(&token, None)).await;
            let Ok(Ok(hello)) = hello else {
                continue;
            };
            let Some(since) = hello.quiet_since else {
                continue;
            };
            if quietest.as_ref().is_none_or(|(least, _)| since < *least) {
                quietest = Some((since, handle));
            }
        }
        if let Some((_, handle)) = quietest {
            handle.make_room();
        }
    }
}

/// Whether its place will be free without anything more being done.
fn is_leaving(handle: &Handle) -> bool {
    let state = handle.status.borrow().state;
    handle.make_room.load(Ordering::Acquire)
        || matches!(state, LearnerState::Draining | LearnerState::Snapshotting)
}
