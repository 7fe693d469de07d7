//! The first step: everything that is known of a learner, taken from the caches in one moment.

use std::sync::Arc;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, Status};
use carrel_core::lifecycle::{self, Observed, PodSeen, Policy, Wish};
use jiff::Timestamp;

use super::{Stir, observe};
use crate::names;
use crate::shared::Handle;
use crate::world::pod::{Life, SeenPod};
use crate::world::{Class, Known, World};

/// So that a time has passed when it is looked at.
const MARGIN: Duration = Duration::from_millis(50);

/// What is known of a learner.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) known: Arc<Known>,
    pub(crate) class: Option<Arc<Class>>,
    pub(crate) desired: Desired,
    pub(crate) policy: Policy,
    pub(crate) observed: Observed,
    /// When its pod is to be looked at again, whatever the plan says.
    pub(crate) recheck: Option<Timestamp>,
}

/// Whether there is such a learner.
pub(crate) enum Seen {
    Learner(Box<Look>),
    Nobody,
}

pub(super) fn look(shared: &Handle, id: &LearnerId, now: Timestamp) -> Seen {
    let mut world = shared.world();
    let Some(known) = world.learners.get(id).cloned() else {
        return Seen::Nobody;
    };
    let class = world.classes.get(&known.class).cloned();
    let missing = ClassSpec::default();
    let policy = Policy::of(class.as_ref().map_or(&missing, |class| &class.spec));
    if known.status.pod.is_none() && lifecycle::wish(&known.desired, &known.status) == Wish::Awake {
        // Who is tried again later holds up nobody until then.
        match known.status.retry_time {
            Some(retry) if now < retry => world.gate.gone(id),
            Some(_) | None => world.gate.ask(id, now),
        }
        shared.admit(&mut world, now);
    }
    let observed = observe(shared, &mut world, id, &known, class.as_deref(), now);
    let named = known
        .status
        .pod
        .as_ref()
        .and_then(|pod| world.pods.get(pod.uid));
    let recheck = named.and_then(|pod| recheck(pod, world.stirs.get(id)));
    Seen::Learner(Box::new(Look {
        desired: known.desired.clone(),
        known,
        class,
        policy,
        observed,
        recheck: recheck.filter(|at| *at > now),
    }))
}

/// When a pod that says nothing, or is being ended, counts as lost.
fn recheck(pod: &SeenPod, stir: Option<&Stir>) -> Option<Timestamp> {
    let silent_since = stir
        .and_then(|stir| stir.heard_of(pod.uid))
        .and_then(|heard| heard.silent_since);
    let at = match &pod.life {
        Life::Leaving { until } => until.checked_add(names::NODE_GONE),
        Life::Starting | Life::Running => silent_since?.checked_add(names::SILENT_AND_LOST),
        Life::Ended { .. } => return None,
    };
    at.ok()?.checked_add(MARGIN).ok()
}

fn observe(
    shared: &Handle,
    world: &mut World,
    id: &LearnerId,
    known: &Known,
    class: Option<&Class>,
    now: Timestamp,
) -> Observed {
    let admitted = world.gate.is_in(id);
    let World { pods, stirs, .. } = world;
    let stir = stirs.entry(id.clone()).or_default();
    stir.finds(known.status.pod.as_ref().map(|pod| pod.uid), now);
    let stored = &known.status;
    let port = shared.options.pods.port;
    // A pod that is gone without a word was lost once, however often one looks.
    if stored.pod.is_none()
        && let Some(choice) = stir.choice
        && pods.get(choice.pod).is_none_or(|pod| pod.gone)
    {
        pods.release(choice.pod, id);
        stir.choice = None;
        stir.unborn = Some((now, observe::DELETED.to_owned()));
    }
    let chosen = stir
        .choice
        .and_then(|choice| Some((choice, pods.get(choice.pod)?)));
    let pod = match (&stored.pod, chosen, &stir.unborn) {
        (Some(named), _, _) => {
            let pod = pods.get(named.uid);
            observe::named(id, stored, named, pod, stir, now)
        }
        (None, Some((choice, pod)), _) => observe::chosen(choice, pod, stir, port, now),
        (None, None, Some((time, reason))) => PodSeen::Unborn {
            pod: None,
            time: *time,
            reason: reason.clone(),
        },
        (None, None, None) => PodSeen::None,
    };
    // Kept beyond the pod that met it.
    let met = pods.fence_of(stored.pod.as_ref().map(|pod| pod.uid));
    stir.fence = stir.fence.max(met);
    Observed {
        status: current(stored, stir.shown.as_ref()),
        fence: stir.fence,
        pod,
        admitted,
        wanting: stir.wanting.clone(),
        make_room: stir.make_room,
        renewed: stir.tried.as_ref() != Some(&tried_with(known, class)),
    }
}

/// With what a pod is tried: the versions of the learner's document and of their class.
pub(super) fn tried_with(known: &Known, class: Option<&Class>) -> (Option<i64>, String) {
    (
        known.generation,
        class.map(|class| class.hash.clone()).unwrap_or_default(),
    )
}

/// The stored status with the steps that are shown but not stored.
fn current(stored: &Status, shown: Option<&Status>) -> Status {
    match shown {
        Some(shown) if shown.epoch == stored.epoch && shown.pod == stored.pod => Status {
            young_deaths: stored.young_deaths,
            retry_time: stored.retry_time,
            ..shown.clone()
        },
        Some(_) | None => stored.clone(),
    }
}
