//! Hears what changes in the store for learners that wait to be tried again: a document or a class may be why it goes now.
//!
//! The others look by themselves at whatever matters to them; a hint for each of their own turns would cost two reads.

use std::sync::{Arc, PoisonError};

use carrel_core::LearnerId;
use carrel_core::learner::LearnerState;
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

fn look_again(handle: &Arc<Handle>) {
    let waits = {
        let status = handle.status.borrow();
        status.state == LearnerState::Failed && status.retry_time.is_some()
    };
    if waits {
        handle.nudge.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use carrel_core::learner::Status;
    use jiff::Timestamp;
    use tokio::sync::broadcast;

    use super::*;

    fn kept(state: LearnerState) -> Arc<Handle> {
        let handle = Handle::new();
        handle.status.send_replace(Status {
            state,
            retry_time: Some(Timestamp::UNIX_EPOCH),
            ..Status::default()
        });
        Arc::new(handle)
    }

    #[tokio::test]
    async fn who_waits_to_be_tried_again_looks_when_it_changed_or_when_changes_were_missed() {
        let id = |name: &str| -> LearnerId { name.parse().unwrap() };
        for (changed, looks) in [
            (&["ada"][..], [true, false, false]),
            (&["cy", "cy", "cy"], [true, true, false]),
        ] {
            let handles = [
                kept(LearnerState::Failed),
                kept(LearnerState::Failed),
                kept(LearnerState::Ready),
            ];
            let names = ["ada", "bob", "cy"].map(id);
            let keepers = Keepers::new(names.into_iter().zip(handles.clone()).collect());
            let store = broadcast::Sender::new(2);
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
