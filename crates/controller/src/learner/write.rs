//! The step that makes a plan true: the status is written, if it has to be, before anything is done.

use carrel_core::learner::{LearnerState, StartKind, Status};
use carrel_core::lifecycle::{self, Plan, PodSeen, Write};
use carrel_core::{LearnerId, PodUid};
use carrel_crd::Beside;
use carrel_telemetry::wakes::Stage;
use jiff::Timestamp;

use super::{Look, Step, Trouble, restore};
use crate::api;
use crate::gate::Progress;
use crate::names::Reason;
use crate::shared::Handle;
use crate::world::pod::{Life, SeenPod};
use crate::world::{Known, World};

/// Writes what must be; `None` when the plan may go on.
pub(super) async fn write(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
    now: Timestamp,
) -> Option<Step> {
    let is_due = explains_at(shared, id, look, plan, now).is_some_and(|at| at <= now);
    let explains = is_due && (plan.write == Write::Must || has_time(shared, id, look, now));
    let is_first = !look.known.is_visited && plan.status.pod.is_none() && plan.effects.is_empty();
    if plan.write != Write::Must && !explains && !is_first {
        show(shared, id, plan);
        return None;
    }
    if !shared.is_leader() {
        return Some(Step::Failed(Trouble::Server));
    }
    // Nobody waits for the first visit of one who rests: it waits for those whom somebody does.
    let _turn = if is_first && plan.write != Write::Must {
        shared.first_visits.acquire().await.ok()
    } else {
        None
    };
    let status = lifecycle::kept(&plan.status);
    let beside = beside(&shared.world(), look, &status, now);
    let shown = carrel_crd::into_status(&status, beside, look.known.generation, now);
    let version = look.known.version.to_string();
    match shared.writer.put_status(id.as_str(), &version, shown).await {
        Ok(learner) => {
            if let Some((_, known)) = Known::read(&learner) {
                let before = look.known.status.pod.as_ref().map(|pod| pod.uid);
                wrote(shared, id, before, plan, known, now);
            }
            scheduled(shared, look, plan, now);
            tell(shared, id, look, plan);
            if explains {
                explain(shared, id, look, plan);
            }
            None
        }
        Err(api::Error::Conflict) => Some(Step::Failed(Trouble::Conflict)),
        // Its object is gone, which the watch will say.
        Err(api::Error::NotFound) => Some(Step::Failed(Trouble::Server)),
        Err(error) => {
            tracing::warn!(learner.id = %id, error = crate::chain(&error), "a status could not be written");
            Some(Step::Failed(Trouble::Server))
        }
    }
}

fn show(shared: &Handle, id: &LearnerId, plan: &Plan) {
    let mut world = shared.world();
    world.stirs.entry(id.clone()).or_default().shown = Some(plan.status.clone());
}

/// From the wish for an incarnation until its pod is named: the line is in it, and the pod's start.
fn scheduled(shared: &Handle, look: &Look, plan: &Plan, now: Timestamp) {
    let is_named = look.known.status.pod.is_none() && plan.status.pod.is_some();
    if let Some(since) = look.observed.status.since.filter(|_| is_named) {
        let start_kind = plan.status.start_kind.unwrap_or(StartKind::Cold);
        shared.metrics.woke(start_kind, Stage::Schedule, since, now);
    }
}

fn wrote(
    shared: &Handle,
    id: &LearnerId,
    before: Option<PodUid>,
    plan: &Plan,
    known: Known,
    now: Timestamp,
) {
    let mut world = shared.world();
    let names_pod = known.status.pod.is_some();
    world.put_learner(id, known);
    let stir = world.stirs.entry(id.clone()).or_default();
    stir.shown = Some(plan.status.clone());
    stir.unborn = stir.unborn.take().filter(|_| !names_pod);
    if names_pod {
        // Named, it is claimed by its name.
        let named = plan.status.pod.as_ref().map(|pod| pod.uid);
        if named != before {
            stir.named = named;
        }
        stir.choice = None;
    } else {
        stir.heard = None;
        stir.probed = None;
        // Whoever made room for others stands in the line again; whoever goes on at once starts once more.
        if std::mem::take(&mut stir.make_room) {
            world.gate.gone(id);
        } else if before.is_some() {
            world.gate.goes_on(id, Progress::Hurries, now);
        }
    }
}

/// What an object's status has beside the product's.
fn beside(world: &World, look: &Look, status: &Status, now: Timestamp) -> Beside {
    let before = &look.known.beside;
    let uid = status
        .pod
        .as_ref()
        .or(look.known.status.pod.as_ref())
        .map(|pod| pod.uid);
    let pod = uid.and_then(|uid| world.pods.get(uid));
    let left = pod.and_then(|pod| match &pod.life {
        Life::Ended { farewell, .. } => farewell.as_ref()?.snapshot_id.as_ref(),
        Life::Starting | Life::Running | Life::Leaving { .. } => None,
    });
    let stirred = status.epoch != look.known.status.epoch || status.pod != look.known.status.pod;
    Beside {
        node_name: pod.and_then(|pod| pod.node.clone()),
        last_active: if stirred {
            Some(now)
        } else {
            before.last_active
        },
        snapshot_id: left
            .map(ToString::to_string)
            .or_else(|| before.snapshot_id.clone()),
        restore: before.restore.clone(),
    }
}

/// When to write why somebody waits, once, for those who see objects alone.
pub(super) fn explains_at(
    shared: &Handle,
    id: &LearnerId,
    look: &Look,
    plan: &Plan,
    now: Timestamp,
) -> Option<Timestamp> {
    let (shown, stored) = (&plan.status, &look.known.status);
    let is_news = match shown.state {
        LearnerState::Waking | LearnerState::Restoring => {
            (shown.state, &shown.detail) != (stored.state, &stored.detail)
                && !shown.detail.is_empty()
        }
        LearnerState::Asleep
        | LearnerState::Ready
        | LearnerState::Busy
        | LearnerState::Draining
        | LearnerState::Snapshotting
        | LearnerState::Failed
        | LearnerState::Deleting => false,
    };
    if !is_news {
        return None;
    }
    let mut world = shared.world();
    let stir = world.stirs.entry(id.clone()).or_default();
    Some(stir.explains_at(&shown.detail, now))
}

/// Whether there is time for a write that is for people alone; it is tried later if not.
fn has_time(shared: &Handle, id: &LearnerId, look: &Look, now: Timestamp) -> bool {
    let in_line = look.observed.pod == PodSeen::None && look.observed.wanting.is_empty();
    let mut world = shared.world();
    let rate = if in_line {
        &mut world.explanations
    } else {
        &mut world.troubles
    };
    let has_time = rate.take(now).is_ok();
    if !has_time && let Some(stir) = world.stirs.get_mut(id) {
        stir.explains_later(now);
    }
    has_time
}

/// An event about what somebody waits for that may never come by itself.
fn explain(shared: &Handle, id: &LearnerId, look: &Look, plan: &Plan) {
    let reason = match &look.observed.pod {
        PodSeen::Starting { pod, detail, .. } if !detail.is_empty() => {
            let has_node = |pod: &SeenPod| pod.node.is_some();
            if shared.world().pods.get(*pod).is_some_and(has_node) {
                Reason::PodNotReady
            } else {
                Reason::Unschedulable
            }
        }
        // Of an older state it is said where the vault is asked.
        PodSeen::None if restore::is_due(&look.known) => return,
        PodSeen::None if !look.observed.wanting.is_empty() => Reason::NamespacesFull,
        PodSeen::None
        | PodSeen::Starting { .. }
        | PodSeen::Unborn { .. }
        | PodSeen::Blank { .. }
        | PodSeen::Refused { .. }
        | PodSeen::Assigned { .. }
        | PodSeen::Exited { .. } => return,
    };
    let why = &plan.status.detail;
    tracing::warn!(learner.id = %id, why, "a learner waits");
    shared.events.learner(id, &look.known.uid, reason, why);
}

/// Events and log lines for what went wrong; none for what goes as it should.
fn tell(shared: &Handle, id: &LearnerId, look: &Look, plan: &Plan) {
    if plan.write != Write::Must {
        return;
    }
    let said = |name| {
        plan.news
            .iter()
            .find(|news| news.name == name && news.holds)
    };
    if let Some(news) = said(lifecycle::names::DATA_AT_RISK) {
        tracing::warn!(learner.id = %id, why = news.message, "an incarnation ended without its last snapshot");
        shared
            .events
            .learner(id, &look.known.uid, Reason::DataAtRisk, &news.message);
    }
    let stored = &look.known.status;
    // What is given up counts its deaths anew.
    let gives_up = lifecycle::gave_up(&plan.status) && !lifecycle::gave_up(stored);
    if gives_up || plan.status.young_deaths > stored.young_deaths {
        let why = &plan.status.detail;
        tracing::warn!(learner.id = %id, why, "an incarnation failed");
        let reason = match &look.observed.pod {
            PodSeen::Unborn { .. } if look.class.is_none() => Reason::ClassUnusable,
            _ if lifecycle::gave_up(&plan.status) => Reason::GaveUp,
            _ => Reason::PodFailed,
        };
        shared.events.learner(id, &look.known.uid, reason, why);
    }
}

#[cfg(test)]
mod tests;
