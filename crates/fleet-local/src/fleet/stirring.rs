//! Finds learners that stir and that nobody looks after: those of an earlier run, and those that another process wants awake.
//! And tells keepers of what another process wants of their learners: a hint comes for each of a turn's events, and says nothing
//! of what it is about, so that only wakes are heard of by hints.

use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::lifecycle::{self, Wish};
use carrel_store::learners::Learner;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use super::{LocalFleet, STORE_AGAIN};

/// How often all are looked for where other processes may want something: what a lost hint would have said.
const ALL_EVERY: Duration = Duration::from_secs(2);

/// Whether a fleet has something to do for a learner.
pub(super) fn stirs(learner: &Learner) -> bool {
    let wish = lifecycle::wish(&learner.desired, &learner.status);
    learner.status.pod.is_some() || wish == Wish::Awake
}

/// Finds them until the store is closed.
pub(super) async fn find(fleet: LocalFleet, mut changes: Receiver<LearnerId>) {
    let mut all_at = Some(Instant::now());
    let mut is_first = true;
    loop {
        let changed = tokio::select! {
            () = sleep_until(all_at.unwrap_or_else(Instant::now)), if all_at.is_some() => None,
            changed = changes.recv() => Some(changed),
        };
        match changed {
            Some(Ok(learner)) => look_at(&fleet, &learner).await,
            Some(Err(RecvError::Closed)) => return,
            None | Some(Err(RecvError::Lagged(_))) => {
                let has_looked = look_at_all(&fleet, is_first).await;
                is_first &= !has_looked;
                let pause = match has_looked {
                    false => Some(STORE_AGAIN),
                    true if fleet.shared.is_alone => None,
                    true => Some(ALL_EVERY),
                };
                all_at = pause.map(|pause| Instant::now() + pause);
            }
        }
    }
}

async fn look_at(fleet: &LocalFleet, learner: &LearnerId) {
    let shared = &fleet.shared;
    if shared.lock().contains_key(learner) {
        return;
    }
    match shared.store.learner(learner, shared.ground.now()).await {
        Ok(Some(learner)) if stirs(&learner) => {
            fleet.keep(&learner.id);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(learner.id = %learner, %error, "found when all are looked for");
        }
    }
}

/// Whether the store answered.
async fn look_at_all(fleet: &LocalFleet, is_first: bool) -> bool {
    match fleet.shared.store.stirring().await {
        Ok(learners) => {
            if is_first {
                tell_of_those_before(&learners);
            }
            for learner in &learners {
                let kept = fleet.shared.lock().get(&learner.id).cloned();
                let is_due = kept.map_or_else(
                    || stirs(learner),
                    |handle| *handle.desired.borrow() != Some(learner.desired),
                );
                if is_due {
                    // Starts a keeper, or nudges the one that is there.
                    fleet.keep(&learner.id);
                }
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the store does not say which learners stir");
            false
        }
    }
}

/// Pods that nobody of this run has made are those of one that did not end well.
fn tell_of_those_before(learners: &[Learner]) {
    let had_pods = learners
        .iter()
        .filter(|learner| learner.status.pod.is_some());
    let awake = had_pods.count();
    if awake > 0 {
        tracing::warn!(
            awake,
            "the server before this one ended while learners were awake: no message is lost, they go on from their last \
             finished turn, and what was being answered is answered again"
        );
    }
}
