//! Hears what changes in the store for learners that wait to be tried again: a document or a class may be why it goes now.
//!
//! The others look by themselves at whatever matters to them; a hint for each of their own turns would cost two reads.

use std::sync::{Arc, PoisonError};

use carrel_core::LearnerId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Keepers;
use crate::learner::Handle;

/// Hears until the store is closed; whoever drops it hears no more.
pub(super) async fn hear(keepers: &Keepers, mut changes: Receiver<LearnerId>) {
    loop {
        let heard = changes.recv().await;
        let keepers = keepers.lock().unwrap_or_else(PoisonError::into_inner);
        match heard {
            Ok(learner) => keepers.get(&learner).into_iter().for_each(look_again),
            // Whose changes were missed nobody knows: it may be anybody's.
            Err(RecvError::Lagged(_)) => keepers.values().for_each(look_again),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whoever has no pod and a time to be tried again waits for it, in whatever state it is shown meanwhile.
fn look_again(handle: &Arc<Handle>) {
    let waits = {
        let status = handle.status.borrow();
        status.pod.is_none() && status.retry_time.is_some()
    };
    if waits {
        handle.nudge.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use carrel_core::PodUid;
    use carrel_core::learner::{LearnerState, PodRef, Status};
    use jiff::Timestamp;
    use tokio::sync::broadcast;
    use uuid::Uuid;

    use super::*;

    fn kept(status: Status) -> Arc<Handle> {
        let handle = Handle::new();
        handle.status.send_replace(status);
        Arc::new(handle)
    }

    /// Waits for its next try, in this state.
    fn waiting(state: LearnerState) -> Status {
        Status {
            state,
            retry_time: Some(Timestamp::UNIX_EPOCH),
            ..Status::default()
        }
    }

    fn awake() -> Status {
        Status {
            pod: Some(PodRef {
                name: "w-x2f9".to_owned(),
                uid: PodUid(Uuid::now_v7()),
                address: "unix:/run/w-x2f9".to_owned(),
            }),
            ..waiting(LearnerState::Ready)
        }
    }

    fn resting() -> Status {
        Status {
            retry_time: None,
            ..waiting(LearnerState::Asleep)
        }
    }

    #[tokio::test]
    async fn who_waits_to_be_tried_again_looks_when_it_changed_or_when_changes_were_missed() {
        let id = |name: &str| -> LearnerId { name.parse().unwrap() };
        let names = ["ada", "bob", "cy", "dan", "eve"];
        for (changed, looks) in [
            (
                &["ada", "dan", "eve"][..],
                [true, false, false, false, false],
            ),
            (&["bob", "cy"], [false, true, true, false, false]),
            (&["eve"; 5], [true, true, true, false, false]),
        ] {
            let handles = [
                kept(waiting(LearnerState::Failed)),
                kept(waiting(LearnerState::Waking)),
                kept(waiting(LearnerState::Asleep)),
                kept(awake()),
                kept(resting()),
            ];
            let keepers = Keepers::new(names.map(id).into_iter().zip(handles.clone()).collect());
            let store = broadcast::Sender::new(4);
            let changes = store.subscribe();
            for name in changed {
                store.send(id(name)).unwrap();
            }
            drop(store);
            hear(&keepers, changes).await;
            let nudged = handles.map(|handle| pin!(handle.nudge.notified()).enable());
            assert_eq!(nudged, looks, "{changed:?}");
        }
    }
}
