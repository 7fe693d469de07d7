//! One learner: looked at, planned, written, acted upon, until nothing is left to do now.
//!
//! [`reconcile`] is the whole of it; each step is a file. Only `write` and `act` touch the API server.

mod act;
mod listen;
mod look;
mod observe;
mod stir;
mod write;

use carrel_core::LearnerId;
use carrel_core::lifecycle::{self, Plan, Write};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub(crate) use self::look::{Look, Seen};
pub(crate) use self::stir::Stir;
use crate::shared::Handle;

/// More rounds than any learner needs at once: one that asks for more is looked at again in a moment.
const ROUNDS: usize = 12;
/// After somebody else wrote first: the watch brings what they wrote, most often sooner.
const CONFLICT_AGAIN: SignedDuration = SignedDuration::from_millis(250);
/// After the API server did not answer.
const SERVER_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// What one step came to.
pub(crate) enum Step {
    /// Something changed by it: look again at once.
    Again,
    /// Nothing more now.
    Wait,
    /// Look again then.
    At(SignedDuration),
}

/// Brings one learner as far as it goes now; when to look again though nothing is seen to change.
pub(crate) async fn reconcile(shared: &Handle, id: &LearnerId) -> Option<Timestamp> {
    let began = Instant::now();
    let again = rounds(shared, id).await;
    shared.metrics.round(began.elapsed());
    again
}

async fn rounds(shared: &Handle, id: &LearnerId) -> Option<Timestamp> {
    for _ in 0..ROUNDS {
        let now = shared.now();
        let look = match look::look(shared, id, now) {
            Seen::Learner(look) => look,
            Seen::Nobody => return act::end_orphans(shared, id).await.map(|wait| now + wait),
        };
        let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, now);
        match step(shared, id, &look, &plan, now).await {
            Step::Again => {}
            Step::Wait => return again_at(shared, id, &look, &plan, now),
            Step::At(wait) => return Some(now + wait),
        }
    }
    tracing::warn!(learner.id = %id, "a learner does not come to rest");
    Some(shared.now() + SERVER_AGAIN)
}

async fn step(shared: &Handle, id: &LearnerId, look: &Look, plan: &Plan, now: Timestamp) -> Step {
    if let Some(step) = write::write(shared, id, look, plan, now).await {
        return step;
    }
    shared.keep_place(id, plan);
    let acted = act::act(shared, id, look, plan, now).await;
    match acted {
        Step::Wait if plan.write == Write::Must => Step::Again,
        acted => acted,
    }
}

/// At rest nothing of a learner is left here but its record.
fn again_at(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
    now: Timestamp,
) -> Option<Timestamp> {
    let explains = write::explains_at(look, plan, now).filter(|at| *at > now);
    let again = plan
        .requeue_at
        .into_iter()
        .chain(explains)
        .chain(look.recheck)
        .min();
    if again.is_none() {
        shared.forget(id);
    }
    again
}
