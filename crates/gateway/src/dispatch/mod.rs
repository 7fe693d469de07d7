//! Finds turns that wait and runs each learner's, one at a time, in a task of that learner.

mod lease;
mod relay;
mod roster;
mod turn;
mod wake;

pub use lease::report;
pub(crate) use lease::{announce, renew};
pub(crate) use roster::Roster;
pub(crate) use wake::{Incarnation, NotAwake, Waker, changed};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::LearnerId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::gateway::Shared;
use roster::Entry;

/// How often the store is asked without a hint.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// The same where other gateways may die: finds their turns.
const POLL_OTHERS_EVERY: Duration = Duration::from_secs(2);
/// Hints that come within this are answered by one look.
const HINTS_GATHER: Duration = Duration::from_millis(20);
/// The most learners found by one look.
const FOUND_AT_ONCE: u32 = 4096;

/// Runs until the process ends.
pub(crate) async fn run(shared: Shared) {
    let store = &shared.options.store;
    let mut changes = store.changes();
    if shared.options.alone {
        // Their owners are gone; without this the turns would wait until the leases end.
        if let Err(error) = store.release_leases_except(shared.owner).await {
            tracing::warn!(%error, "leases of an earlier process stay until they end");
        }
    }
    let mut poll = polling(&shared);
    loop {
        let hinted = tokio::select! {
            () = shared.draining.cancelled() => return,
            _ = poll.tick() => None,
            changed = changes.recv() => match changed {
                Ok(learner) if shared.roster.look_again(&learner) => continue,
                Ok(learner) => {
                    tokio::time::sleep(HINTS_GATHER).await;
                    hinted(&shared, learner, &mut changes)
                }
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return,
            },
        };
        let found = match &hinted {
            Some(learners) if learners.is_empty() => continue,
            Some(learners) => store.waiting_among(learners, shared.now()).await,
            None => store.waiting(shared.now(), FOUND_AT_ONCE).await,
        };
        match found {
            Ok(found) => found.iter().for_each(|learner| kick(&shared, learner)),
            Err(error) => tracing::warn!(%error, "turns that wait cannot be listed"),
        }
    }
}

/// Looks at the store for all streams now and then, until the process ends.
pub(crate) async fn catch_up(shared: Shared) {
    let mut poll = polling(&shared);
    let looks = async {
        loop {
            poll.tick().await;
            shared.hubs.catch_up_all(&shared.options.store).await;
        }
    };
    shared.cancel.run_until_cancelled(looks).await;
}

/// When the store is asked without a hint.
fn polling(shared: &Shared) -> Interval {
    let mut poll = interval(if shared.options.alone {
        POLL_EVERY
    } else {
        POLL_OTHERS_EVERY
    });
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll
}

/// Who changed lately and is not seen to here already. `None`: hints were lost, it may be anybody.
fn hinted(
    shared: &Shared,
    first: LearnerId,
    changes: &mut Receiver<LearnerId>,
) -> Option<Vec<LearnerId>> {
    let mut learners = HashSet::from([first]);
    loop {
        match changes.try_recv() {
            Ok(learner) => drop(learners.insert(learner)),
            Err(TryRecvError::Lagged(_)) => return None,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    let others = learners
        .into_iter()
        .filter(|learner| !shared.roster.look_again(learner));
    Some(others.collect())
}

/// A turn of this learner may wait: sees to it now, unless that is being done.
pub(crate) fn kick(shared: &Shared, learner: &LearnerId) {
    if shared.draining.is_cancelled() {
        return;
    }
    if let Some(entry) = shared.roster.enter(learner) {
        let shared = Arc::clone(shared);
        shared.tracker.clone().spawn(async move {
            let all = run_all(&shared, &entry);
            tokio::select! {
                () = shared.cancel.cancelled() => {}
                () = all => {}
            }
            shared.roster.leave_for_good(&entry);
        });
    }
}

/// Runs the learner's turns until none waits.
async fn run_all(shared: &Shared, entry: &Arc<Entry>) {
    loop {
        while !shared.draining.is_cancelled() {
            let now = shared.now();
            let until = now + lease::Lasting::of(shared).lasts;
            let claimed = shared
                .options
                .store
                .claim(entry.learner(), shared.owner, now, until)
                .await;
            match claimed {
                Ok(Some(claimed)) => {
                    let lost = entry.own(claimed.turn.turn_id, claimed.lease);
                    let run = turn::run(shared, entry.learner(), claimed, lost);
                    let ended = Box::pin(run).await;
                    entry.disown();
                    if let Some(hub) = shared.hubs.find(entry.learner()) {
                        hub.let_go();
                    }
                    if !ended {
                        // Let go: found again when its lease ends.
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(learner.id = %entry.learner(), %error, "a turn cannot be claimed");
                    break;
                }
            }
        }
        if shared.roster.leave(entry) {
            return;
        }
    }
}
