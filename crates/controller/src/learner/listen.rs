//! Listens to a sidecar while there is something to hear: until its learner is ready, while it is told to sleep, and when somebody
//! asks for more than the incarnation that lives. A learner who is ready is not listened to: how it ends, its pod says.

use std::time::Duration;

use carrel_core::lifecycle::{Phase, Plan, PodSeen};
use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_protocol::Code;
use carrel_protocol::sidecar::Phase as Said;
use carrel_protocol::token::Caller;
use carrel_wire::sidecar::{self, Sidecar};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{Look, Stir, act};
use crate::shared::Handle;
use crate::world::pod::Life;

/// Between questions to a sidecar that gives no answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long a sidecar may take that is asked for nothing but how it is.
const ANSWERS_AT_ONCE: Duration = Duration::from_secs(5);
/// The longest pause between them.
const ASK_SELDOM: Duration = Duration::from_secs(5);

/// Begins, or ends, to listen as a plan needs it.
pub(super) fn as_needed(shared: &Handle, id: &LearnerId, look: &Look, plan: &Plan) {
    let Some(pod) = &plan.status.pod else {
        return;
    };
    match &look.observed.pod {
        PodSeen::Assigned {
            phase: Phase::Ready | Phase::Busy,
            ..
        } => {
            let doubts = look
                .desired
                .wake_after_epoch
                .filter(|_| act::is_doubted(look, plan));
            let mut world = shared.world();
            let stir = world.stirs.entry(id.clone()).or_default();
            if doubts.is_some() && stir.probed != doubts {
                stir.probed = doubts;
                drop(world);
                begin(shared, id, plan.status.epoch, pod.uid);
            }
        }
        PodSeen::Assigned { .. } | PodSeen::Starting { .. } => {
            begin(shared, id, plan.status.epoch, pod.uid);
        }
        PodSeen::None
        | PodSeen::Unborn { .. }
        | PodSeen::Blank { .. }
        | PodSeen::Refused { .. }
        | PodSeen::Exited { .. } => {}
    }
}

/// Listens to a pod's sidecar, unless somebody does already.
pub(super) fn begin(shared: &Handle, id: &LearnerId, epoch: Epoch, pod: PodUid) {
    let listening = {
        let mut world = shared.world();
        let stir = world.stirs.entry(id.clone()).or_default();
        match &stir.listening {
            Some((heard, listening)) if *heard == pod && !listening.is_cancelled() => return,
            Some((_, before)) => before.cancel(),
            None => {}
        }
        let listening = shared.cancel.child_token();
        stir.listening = Some((pod, listening.clone()));
        listening
    };
    let (handle, id) = (Handle::clone(shared), id.clone());
    let done = listening.clone();
    shared.tracker.spawn(async move {
        listening
            .run_until_cancelled(listen(&handle, &id, epoch, pod))
            .await;
        done.cancel();
    });
}

async fn listen(shared: &Handle, id: &LearnerId, epoch: Epoch, pod: PodUid) {
    let (mut after, mut pause) = (None, ASK_AGAIN);
    loop {
        let endpoint = {
            let world = shared.world();
            let seen = world
                .pods
                .get(pod)
                .filter(|seen| !matches!(seen.life, Life::Ended { .. }));
            let url = seen.and_then(|seen| seen.url(shared.options.pods.port));
            url.and_then(|url| url.parse().ok())
        };
        let Some(endpoint) = endpoint else { return };
        let now = shared.now();
        let signer = &shared.options.signer;
        let Ok(token) = signer.caller_token(Caller::Controller, id, epoch, now) else {
            return;
        };
        let sidecar = Sidecar::at(endpoint, shared.options.trust.clone());
        let said = match after {
            Some(_) => sidecar.hello(&token, after).await,
            None => timeout(ANSWERS_AT_ONCE, sidecar.hello(&token, None))
                .await
                .unwrap_or(Err(sidecar::Error::Late)),
        };
        match said {
            Ok(hello) => {
                pause = ASK_AGAIN;
                after = Some(hello.revision);
                let is_over = matches!(hello.phase, Said::Ready | Said::Busy);
                let restored = hello.restore_ms.filter(|_| is_over);
                hear(shared, id, |stir, now| stir.hears(pod, hello, now));
                if let Some(took) = restored {
                    tracing::debug!(learner.id = %id, took, "a learner is ready");
                }
                shared.queue.now(id);
                if is_over {
                    return;
                }
            }
            // It is another's, whatever our status says.
            Err(sidecar::Error::Refused(problem)) if problem.code == Code::Misdirected => {
                hear(shared, id, |stir, _| stir.refused = Some(pod));
                shared.queue.now(id);
                return;
            }
            Err(error) => {
                tracing::debug!(learner.id = %id, error = crate::chain(&error), "a sidecar does not answer");
                hear(shared, id, |stir, now| stir.misses(pod, now));
                // It may be long enough by now.
                shared.queue.now(id);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ASK_SELDOM);
            }
        }
    }
}

fn hear(shared: &Handle, id: &LearnerId, take: impl FnOnce(&mut Stir, Timestamp)) {
    let mut world = shared.world();
    take(world.stirs.entry(id.clone()).or_default(), shared.now());
}
