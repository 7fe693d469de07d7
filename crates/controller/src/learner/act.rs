//! The last step: the effects of a plan, each of which may be repeated.

use std::time::Duration;

use carrel_core::learner::{PodRef, StartKind};
use carrel_core::lifecycle::{Effect, Plan};
use carrel_core::{LearnerId, PodUid};
use carrel_protocol::Code;
use carrel_protocol::token::Caller;
use carrel_telemetry::wakes::Stage;
use carrel_wire::sidecar::{self, Sidecar};
use jiff::Timestamp;
use tokio::time::Instant;

use super::stir::Choice;
use super::{Look, Step, Trouble, listen, look};
use crate::api::PodPlace;
use crate::gate::Progress;
use crate::shared::Handle;
use crate::world::pod::{Life, SeenPod};
use crate::world::{Known, World};
use crate::{api, assignment, pool};

/// Between tries to reach a sidecar that has just become ready.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// How long it is tried without looking at anything else.
const CONNECT: Duration = Duration::from_secs(2);
/// What the last second of a pod that is ended at once is for: its processes are told.
const AT_ONCE: u32 = 1;

pub(super) async fn act(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
    now: Timestamp,
) -> Step {
    let mut step = Step::Wait;
    for effect in &plan.effects {
        let next = match effect {
            Effect::CreatePod { .. } => create_pod(shared, id, look, now).await,
            Effect::Assign { pod, .. } => assign(shared, id, look, plan, pod, now).await,
            Effect::AskToSleep { pod, .. } => ask_to_sleep(shared, id, plan, *pod, now).await,
            Effect::KillPod { pod, reason } => {
                tracing::warn!(learner.id = %id, %pod, %reason, seen = ?look.observed.pod, "a pod is ended");
                delete(shared, id, *pod, Some(AT_ONCE)).await
            }
            Effect::LetGo { pod } => let_go(shared, id, *pod).await,
            Effect::DeletePod { pod } => delete(shared, id, *pod, None).await,
            // Erasing is the gateway's; the object is gone then.
            Effect::FinishErase => Step::Wait,
        };
        step = match (step, next) {
            (Step::Failed(trouble), _) | (_, Step::Failed(trouble)) => Step::Failed(trouble),
            (Step::Again, _) | (_, Step::Again) => Step::Again,
            (Step::Wait, Step::Wait) => Step::Wait,
        };
    }
    listen::as_needed(shared, id, look, plan, now);
    step
}

/// Takes the oldest blank pod of the pool, one that starts if none is ready, and makes one if there is none.
async fn create_pod(shared: &Handle, id: &LearnerId, look: &Look, now: Timestamp) -> Step {
    let tried = look::tried_with(&look.known, look.class.as_deref());
    let Some(class) = &look.class else {
        let reason = format!(
            "its class '{}' does not exist, or cannot be used",
            look.known.class
        );
        unborn(shared, id, tried, reason, now);
        return Step::Again;
    };
    if choose(&mut shared.world(), id, &class.hash, tried.clone(), now) {
        shared.pool.notify_one();
        return Step::Again;
    }
    let place = match shared.roomiest() {
        Ok(place) => place,
        Err((until, why)) => {
            let mut world = shared.world();
            world.gate.later(id, until);
            let stir = world.stirs.entry(id.clone()).or_default();
            stir.wanting = format!("the learner namespaces are full: {why}");
            return Step::Again;
        }
    };
    match shared.make_pod(class, place).await {
        // It is blank as any other is: whoever comes first takes it, and it may be another already. Or another namespace may take one.
        Ok(()) | Err(api::Error::Full(_)) => Step::Again,
        Err(error @ (api::Error::Refused(_) | api::Error::NotFound)) => {
            unborn(
                shared,
                id,
                tried,
                format!("its pod could not be made: {error}"),
                now,
            );
            Step::Again
        }
        Err(error) => {
            tracing::warn!(learner.id = %id, error = crate::chain(&error), "a pod could not be made");
            Step::Failed(Trouble::Server)
        }
    }
}

fn choose(
    world: &mut World,
    id: &LearnerId,
    hash: &str,
    tried: (Option<i64>, String),
    now: Timestamp,
) -> bool {
    let Some(blanks) = world.pods.blanks(hash) else {
        return false;
    };
    let ready = blanks.ready.first().map(|(_, pod)| (*pod, StartKind::Warm));
    // One that has not started in time will not: whoever keeps the pools removes it.
    let in_time = |(created, _): &&(Timestamp, PodUid)| !pool::is_late(*created, now);
    let starting = blanks
        .starting
        .iter()
        .find(in_time)
        .map(|(_, pod)| (*pod, StartKind::Cold));
    let Some((pod, start_kind)) = ready.or(starting) else {
        return false;
    };
    take(world, id, pod, start_kind, tried, now);
    true
}

fn take(
    world: &mut World,
    id: &LearnerId,
    pod: PodUid,
    start_kind: StartKind,
    tried: (Option<i64>, String),
    now: Timestamp,
) {
    world.pods.claim(pod, id);
    if start_kind == StartKind::Cold {
        world.gate.goes_on(id, Progress::Waits, now);
    }
    let stir = world.stirs.entry(id.clone()).or_default();
    stir.choice = Some(Choice { pod, start_kind });
    stir.unborn = None;
    stir.wanting.clear();
    stir.tried = Some(tried);
}

fn unborn(
    shared: &Handle,
    id: &LearnerId,
    tried: (Option<i64>, String),
    reason: String,
    now: Timestamp,
) {
    let mut world = shared.world();
    let stir = world.stirs.entry(id.clone()).or_default();
    stir.unborn = Some((now, reason));
    stir.tried = Some(tried);
}

/// Sends the assignment and says on the pod whose it is, side by side: the one is for the sidecar, the other for people and
/// for the next leader.
async fn assign(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
    named: &PodRef,
    now: Timestamp,
) -> Step {
    let Some(class) = &look.class else {
        return Step::Failed(Trouble::Server);
    };
    let Some(pod) = shared.world().pods.get(named.uid).cloned() else {
        return Step::Again;
    };
    let epoch = plan.status.epoch;
    let signed = match assignment::signed(&shared.options, id, epoch, named.uid, class, now) {
        Ok(signed) => signed,
        Err(error) => {
            tracing::error!(learner.id = %id, %error, "an assignment could not be signed");
            return Step::Failed(Trouble::Server);
        }
    };
    let is_labelled = pod.learner.as_ref() == Some(id) && pod.epoch == Some(epoch);
    let label = async {
        if !is_labelled {
            label(shared, id, &pod.place(), epoch.0).await;
        }
    };
    let (sent, ()) = tokio::join!(send(shared, named, signed), label);
    match sent {
        Ok(()) => {
            let start_kind = plan.status.start_kind.unwrap_or(StartKind::Cold);
            shared
                .metrics
                .woke(start_kind, Stage::Assign, now, shared.now());
            let (mut world, now) = (shared.world(), shared.now());
            world.gate.goes_on(id, Progress::Waits, now);
            let stir = world.stirs.entry(id.clone()).or_default();
            stir.taken = Some((named.uid, now));
            drop(world);
            listen::begin(shared, id, epoch, named.uid);
            Step::Wait
        }
        Err(sidecar::Error::Refused(problem)) if problem.code == Code::Conflict => {
            let mut world = shared.world();
            world.stirs.entry(id.clone()).or_default().refused = Some(named.uid);
            Step::Again
        }
        Err(error) => {
            tracing::debug!(learner.id = %id, error = crate::chain(&error), "an assignment did not arrive");
            Step::Failed(Trouble::Sidecar)
        }
    }
}

async fn label(shared: &Handle, id: &LearnerId, pod: &PodPlace, epoch: u64) {
    match shared.writer.label_pod(pod, id.as_str(), epoch).await {
        Ok(pod) => {
            if let Some(pod) = SeenPod::read(&pod) {
                shared.world().pods.put(pod);
            }
        }
        // It is a help, not a fact: the status names the pod.
        Err(error) => {
            tracing::debug!(learner.id = %id, error = crate::chain(&error), "a pod could not be labelled");
        }
    }
}

async fn send(shared: &Handle, pod: &PodRef, signed: String) -> Result<(), sidecar::Error> {
    let Ok(endpoint) = pod.address.parse() else {
        return Err(sidecar::Error::Unreadable(0));
    };
    let sidecar = Sidecar::at(endpoint, shared.options.trust.clone());
    let until = Instant::now() + CONNECT;
    loop {
        let sent = tokio::time::timeout_at(until, sidecar.assign(signed.clone())).await;
        match sent.unwrap_or(Err(sidecar::Error::Late)) {
            Err(sidecar::Error::Silent(_)) if Instant::now() < until => {
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            sent => return sent,
        }
    }
}

async fn ask_to_sleep(
    shared: &Handle,
    id: &LearnerId,
    plan: &Plan,
    pod: PodUid,
    now: Timestamp,
) -> Step {
    let endpoint = plan
        .status
        .pod
        .as_ref()
        .and_then(|pod| pod.address.parse().ok());
    let signer = &shared.options.signer;
    let token = signer.caller_token(Caller::Controller, id, plan.status.epoch, now);
    let (Some(endpoint), Ok(token)) = (endpoint, token) else {
        return Step::Failed(Trouble::Server);
    };
    let sidecar = Sidecar::at(endpoint, shared.options.trust.clone());
    if let Err(error) = sidecar.sleep(&token).await {
        tracing::warn!(learner.id = %id, error = crate::chain(&error), "a sidecar could not be asked to sleep");
    }
    listen::begin(shared, id, plan.status.epoch, pod);
    Step::Wait
}

async fn delete(shared: &Handle, id: &LearnerId, pod: PodUid, grace: Option<u32>) -> Step {
    let has_ended = shared.world().pods.get(pod).is_none_or(SeenPod::has_ended);
    match shared.end_pod(pod, Some(id), grace).await {
        Ok(()) if has_ended => {
            forget_pod(shared, id, pod);
            Step::Again
        }
        Ok(()) => Step::Wait,
        Err(error) => {
            tracing::warn!(learner.id = %id, %pod, error = crate::chain(&error), "a pod could not be deleted");
            // Whoever keeps the pools removes what is nobody's.
            if has_ended {
                forget_pod(shared, id, pod);
            }
            Step::Failed(Trouble::Server)
        }
    }
}

/// It has taken no assignment of ours: another learner may have it, unless it said that it is somebody's.
async fn let_go(shared: &Handle, id: &LearnerId, pod: PodUid) -> Step {
    let is_anybodys = {
        let world = shared.world();
        let refused = world.stirs.get(id).and_then(|stir| stir.refused);
        world.pods.get(pod).is_some_and(SeenPod::is_blank) && refused != Some(pod)
    };
    if !is_anybodys && let Err(error) = shared.end_pod(pod, Some(id), None).await {
        tracing::warn!(learner.id = %id, %pod, error = crate::chain(&error), "a pod could not be deleted");
    }
    forget_pod(shared, id, pod);
    shared.pool.notify_one();
    Step::Again
}

fn forget_pod(shared: &Handle, id: &LearnerId, pod: PodUid) {
    let mut world = shared.world();
    world.pods.release(pod, id);
    if let Some(stir) = world.stirs.get_mut(id) {
        stir.choice = stir.choice.filter(|choice| choice.pod != pod);
        stir.refused = stir.refused.filter(|refused| *refused != pod);
    }
}

/// There is no such learner here: if there is none at all, what pods they have left may save and go. The watch of learners may be
/// behind that of pods, so nothing is ended before the API server has said so itself.
pub(super) async fn end_orphans(shared: &Handle, id: &LearnerId) -> Step {
    let pods: Vec<SeenPod> = {
        let world = shared.world();
        let claimed = world.pods.iter().filter(|pod| {
            world.pods.claimant(pod.uid) == Some(id) && pod.learner.as_ref() != Some(id)
        });
        let theirs = world.pods.labelled(id).chain(claimed);
        let stays = |pod: &&SeenPod| pod.gone || !matches!(pod.life, Life::Leaving { .. });
        theirs.filter(stays).cloned().collect()
    };
    if pods.is_empty() {
        shared.forget(id);
        return Step::Wait;
    }
    match shared.writer.learner(id.as_str()).await {
        Ok(None) => {}
        Ok(Some(learner)) => {
            let Some((id, known)) = Known::read(&learner) else {
                return Step::Wait;
            };
            shared.world().put_learner(&id, known);
            return Step::Again;
        }
        Err(error) => {
            tracing::warn!(learner.id = %id, error = crate::chain(&error), "whether a learner is gone cannot be asked");
            return Step::Failed(Trouble::Server);
        }
    }
    let mut step = Step::Wait;
    for pod in pods {
        tracing::info!(learner.id = %id, pod = pod.name, "a pod whose learner is gone is ended");
        if let Err(error) = shared.end_pod(pod.uid, Some(id), None).await {
            tracing::warn!(learner.id = %id, error = crate::chain(&error), "a pod could not be deleted");
            step = Step::Failed(Trouble::Server);
        }
    }
    if let Step::Wait = step {
        shared.forget(id);
    }
    step
}
