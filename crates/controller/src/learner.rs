//! One learner: looked at, planned, written, acted upon, until nothing is left to do now.
//!
//! [`reconcile`] is the whole of it; each step is a file. Only `write` and `act` touch the API server.

mod act;
mod listen;
mod look;
mod observe;
mod restore;
mod stir;
mod write;

use carrel_core::LearnerId;
use carrel_core::lifecycle::{self, Plan, Write};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub(crate) use self::look::{Look, Seen};
pub(crate) use self::restore::is_due as restore_is_due;
pub(crate) use self::stir::Stir;
use crate::shared::Handle;

/// More rounds than any learner needs at once: one that asks for more is looked at again in a moment.
const ROUNDS: usize = 12;

/// What one step came to.
pub(crate) enum Step {
    /// Something changed by it: look again at once.
    Again,
    /// Nothing more now.
    Wait,
    /// It came to nothing: look again in a moment.
    Failed(Trouble),
}

/// Why a look came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Somebody else wrote first: the watch brings what they wrote, most often sooner.
    Conflict,
    /// An assignment did not arrive.
    Sidecar,
    /// The API server did not do what it was asked for.
    Server,
    /// One change follows another.
    Restless,
}

impl Trouble {
    fn again(self) -> SignedDuration {
        match self {
            Self::Conflict => SignedDuration::from_millis(250),
            Self::Sidecar => SignedDuration::from_millis(500),
            Self::Server | Self::Restless => SignedDuration::from_secs(1),
        }
    }
}

/// How a look ends: with the time of the next though nothing is seen to change, or with trouble.
pub(crate) type Ended = Result<Option<Timestamp>, Trouble>;

/// Brings one learner as far as it goes now; when to look again though nothing is seen to change.
pub(crate) async fn reconcile(shared: &Handle, id: &LearnerId) -> Option<Timestamp> {
    let began = Instant::now();
    let ended = rounds(shared, id).await;
    shared.metrics.round(&ended, began.elapsed());
    ended.unwrap_or_else(|trouble| Some(shared.now() + trouble.again()))
}

async fn rounds(shared: &Handle, id: &LearnerId) -> Ended {
    for _ in 0..ROUNDS {
        let now = shared.now();
        let waits = match restore::first(shared, id, now).await? {
            restore::Next::GoOn => None,
            restore::Next::Again => continue,
            restore::Next::Wait(waits) => Some(waits),
        };
        let known = match look::look(shared, id, waits.as_ref(), now) {
            Seen::Learner(look) => {
                let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, now);
                Some((look, plan))
            }
            Seen::Nobody => None,
        };
        let step = match &known {
            Some((look, plan)) => step(shared, id, look, plan, now).await,
            None => act::end_orphans(shared, id).await,
        };
        match step {
            Step::Again => {}
            Step::Wait => {
                return Ok(known.and_then(|(look, plan)| again_at(shared, id, &look, &plan, now)));
            }
            Step::Failed(trouble) => return Err(trouble),
        }
    }
    tracing::warn!(learner.id = %id, "a learner does not come to rest");
    Err(Trouble::Restless)
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
    let explains = write::explains_at(shared, id, look, plan, now).filter(|at| *at > now);
    let again = plan
        .requeue_at
        .into_iter()
        .chain(explains)
        .chain(look.recheck)
        .chain(listen::doubts_again(shared, id, look, plan))
        .min();
    if again.is_none() {
        shared.forget(id);
    }
    again
}
