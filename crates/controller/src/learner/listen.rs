//! Listens to a sidecar while there is something to hear: whether the pod that somebody waits for takes them, until its learner is ready,
//! while it is told to sleep, and now and then while somebody asks for more than the incarnation that lives. A learner who is ready is
//! not listened to otherwise: how it ends, its pod says.

use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_core::lifecycle::{Phase, Plan, PodSeen};
use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_protocol::sidecar::Phase as Said;
use carrel_protocol::token::Caller;
use carrel_protocol::{Code, Endpoint};
use carrel_wire::sidecar::{self, Sidecar};
use jiff::Timestamp;
use tokio::time::timeout;

use super::stir::{Answered, Ear};
use super::{Look, Stir};
use crate::shared::Handle;

/// Between questions to a sidecar that gives no answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long a sidecar may take that is asked for nothing but how it is.
const ANSWERS_AT_ONCE: Duration = Duration::from_secs(5);
/// The longest pause between them.
const ASK_SELDOM: Duration = Duration::from_secs(5);
/// Between the first questions whether a pod takes somebody.
const KNOCK_AGAIN: Duration = Duration::from_millis(20);
/// The longest pause between them; its kubelet asks once a second, too.
const KNOCK_SELDOM: Duration = Duration::from_secs(1);

/// Begins, or ends, to listen as a plan needs it.
pub(super) fn as_needed(shared: &Handle, id: &LearnerId, look: &Look, plan: &Plan, now: Timestamp) {
    let Some(pod) = &plan.status.pod else {
        if let PodSeen::Starting { pod, .. } = look.observed.pod
            && endpoint(shared, pod).is_some()
        {
            let (handle, of) = (Handle::clone(shared), id.clone());
            spawn(shared, id, pod, Ear::Knock, async move {
                knock(&handle, &of, pod).await
            });
        }
        return;
    };
    match &look.observed.pod {
        PodSeen::Assigned {
            phase: Phase::Ready | Phase::Busy,
            ..
        } => {
            let mut world = shared.world();
            let stir = world.stirs.entry(id.clone()).or_default();
            if is_doubted(look, plan) && stir.probes(now) {
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

/// Whether somebody asks for more than the incarnation that lives: it may be gone without a trace. It is doubted as long as the wish
/// stays, which is until it has ended: the same doubt again writes nothing, and so says nothing. Where it was wrong, the learner is woken
/// once more when they have slept: what asks for that may as well be a message that came while they fell asleep.
fn is_doubted(look: &Look, plan: &Plan) -> bool {
    let after = look.desired.wake_after_epoch;
    let is_up = matches!(plan.status.state, LearnerState::Ready | LearnerState::Busy);
    let named = matches!(look.observed.pod, PodSeen::Assigned { .. });
    is_up && named && after.is_some_and(|after| after >= plan.status.epoch)
}

/// When one who is doubted is asked again.
pub(super) fn doubts_again(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
) -> Option<Timestamp> {
    let world = shared.world();
    let stir = world.stirs.get(id).filter(|_| is_doubted(look, plan));
    stir?.probes_again()
}

/// Listens to a pod's sidecar, unless somebody does already.
pub(super) fn begin(shared: &Handle, id: &LearnerId, epoch: Epoch, pod: PodUid) {
    let (handle, of) = (Handle::clone(shared), id.clone());
    spawn(shared, id, pod, Ear::Listen, async move {
        listen(&handle, &of, epoch, pod).await
    });
}

/// Asks the sidecar of a pod that starts, and that somebody waits for, whether it takes them; whether it said so.
async fn knock(shared: &Handle, id: &LearnerId, pod: PodUid) -> bool {
    let mut pause = KNOCK_AGAIN;
    while let Some(endpoint) = endpoint(shared, pod) {
        let sidecar = Sidecar::at(endpoint, shared.options.trust.clone());
        let answered = match sidecar.ready().await {
            Ok(()) => Some(Answered::Ready),
            Err(sidecar::Error::Refused(problem)) => Some(Answered::NotYet(problem.detail)),
            // It listens in a moment.
            Err(_) => None,
        };
        let is_over = answered == Some(Answered::Ready);
        let mut is_news = false;
        hear(shared, id, |stir, _| {
            let answered = answered.map(|answered| (pod, answered));
            is_news = answered.is_some() && stir.answered != answered;
            stir.answered = answered.or(stir.answered.take());
        });
        if is_over {
            return true;
        }
        if is_news {
            shared.queue.now(id);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(KNOCK_SELDOM);
    }
    false
}

/// Where the sidecar of a pod listens that has not ended.
fn endpoint(shared: &Handle, pod: PodUid) -> Option<Endpoint> {
    let world = shared.world();
    let seen = world.pods.get(pod)?;
    let url = seen.url(shared.options.pods.port);
    url.filter(|_| !seen.has_ended())?.parse().ok()
}

/// Listens to a pod for this, unless somebody does already; what is heard last is looked at when nobody listens any more.
fn spawn(
    shared: &Handle,
    id: &LearnerId,
    pod: PodUid,
    ear: Ear,
    listen: impl Future<Output = bool> + Send + 'static,
) {
    let listening = {
        let mut world = shared.world();
        let stir = world.stirs.entry(id.clone()).or_default();
        match &stir.listening {
            Some((heard, what, listening))
                if (*heard, *what) == (pod, ear) && !listening.is_cancelled() =>
            {
                return;
            }
            Some((_, _, before)) => before.cancel(),
            None => {}
        }
        let listening = shared.cancel.child_token();
        stir.listening = Some((pod, ear, listening.clone()));
        listening
    };
    let (handle, id) = (Handle::clone(shared), id.clone());
    shared.tracker.spawn(async move {
        let heard = listening.run_until_cancelled(listen).await;
        listening.cancel();
        if heard == Some(true) {
            handle.queue.now(&id);
        }
    });
}

/// Listens until there is nothing more to hear; whether that was heard.
async fn listen(shared: &Handle, id: &LearnerId, epoch: Epoch, pod: PodUid) -> bool {
    let (mut after, mut pause) = (None, ASK_AGAIN);
    while let Some(endpoint) = endpoint(shared, pod) {
        let now = shared.now();
        let signer = &shared.options.signer;
        let Ok(token) = signer.caller_token(Caller::Controller, id, epoch, now) else {
            return false;
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
                if is_over {
                    return true;
                }
                shared.queue.now(id);
            }
            // It is another's, whatever our status says.
            Err(sidecar::Error::Refused(problem)) if problem.code == Code::Misdirected => {
                hear(shared, id, |stir, _| stir.refused = Some(pod));
                return true;
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
    false
}

fn hear(shared: &Handle, id: &LearnerId, take: impl FnOnce(&mut Stir, Timestamp)) {
    let mut world = shared.world();
    take(world.stirs.entry(id.clone()).or_default(), shared.now());
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::*;
    use crate::shared::tests::{Parts, id};

    #[tokio::test(start_paused = true)]
    async fn who_knocks_keeps_nobody_from_listening_and_who_listens_does() {
        let parts = Parts::new(1, 1);
        let (shared, ada, pod) = (&parts.shared, id("ada"), PodUid(Uuid::nil()));
        let (knocks, knocked) = oneshot::channel::<()>();
        spawn(shared, &ada, pod, Ear::Knock, async move {
            let _knocks = knocks;
            pending().await
        });
        let (listens, listened) = oneshot::channel::<()>();
        let (more, heard) = oneshot::channel::<()>();
        spawn(shared, &ada, pod, Ear::Listen, async move {
            let _listens = listens;
            heard.await.is_ok()
        });
        let ended = timeout(ANSWERS_AT_ONCE, knocked).await;
        ended.expect("it ends for whoever listens").unwrap_err();
        spawn(shared, &ada, pod, Ear::Listen, async {
            panic!("two listen")
        });
        more.send(()).unwrap();
        listened.await.expect_err("it has heard");
        let looked_at = timeout(ANSWERS_AT_ONCE, shared.queue.next()).await;
        assert_eq!(looked_at, Ok(ada), "and she is looked at");
    }
}
