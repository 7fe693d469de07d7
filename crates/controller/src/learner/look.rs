//! The first step: everything that is known of a learner, taken from the caches in one moment.

use std::sync::Arc;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{Desired, Status};
use carrel_core::lifecycle::{self, Observed, PodSeen, Policy, Wish};
use jiff::Timestamp;

use super::restore::Waits;
use super::{Stir, observe};
use crate::gate::Progress;
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
    /// When it is to be looked at again, whatever the plan says.
    pub(crate) recheck: Option<Timestamp>,
}

/// Whether there is such a learner.
pub(crate) enum Seen {
    Learner(Box<Look>),
    Nobody,
}

/// Who waits for something else first gets no place.
pub(super) fn look(shared: &Handle, id: &LearnerId, waits: Option<&Waits>, now: Timestamp) -> Seen {
    let mut world = shared.world();
    let Some(known) = world.learners.get(id).cloned() else {
        return Seen::Nobody;
    };
    let class = world.classes.get(&known.class).cloned();
    let missing = ClassSpec::default();
    let policy = Policy::of(class.as_ref().map_or(&missing, |class| &class.spec));
    if known.status.pod.is_none() && lifecycle::wish(&known.desired, &known.status) == Wish::Awake {
        // Who is tried again later holds up nobody until then.
        let is_later = known.status.retry_time.is_some_and(|retry| now < retry);
        if is_later || waits.is_some() {
            world.gate.gone(id);
        } else {
            world.gate.ask(id, now);
        }
        shared.admit(&mut world, now);
    }
    let mut observed = observe(shared, &mut world, id, &known, class.as_deref(), now);
    if let Some(waits) = waits {
        observed.wanting.clone_from(&waits.why);
    }
    // Nor does who waits for a node, for as long as that may be.
    if let PodSeen::Starting { pod, .. } = &observed.pod
        && world
            .pods
            .get(*pod)
            .is_some_and(|pod| !pod.waits.is_empty())
    {
        world.gate.goes_on(id, Progress::Lives, now);
    }
    let named = known
        .status
        .pod
        .as_ref()
        .and_then(|pod| world.pods.get(pod.uid));
    let recheck = named.and_then(|pod| recheck(pod, world.stirs.get(id)));
    let recheck = recheck.into_iter().chain(waits.map(|waits| waits.until));
    Seen::Learner(Box::new(Look {
        desired: known.desired,
        known,
        class,
        policy,
        observed,
        recheck: recheck.filter(|at| *at > now).min(),
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

#[cfg(test)]
mod tests {
    use carrel_core::learner::{LearnerState, StartKind};
    use carrel_core::lifecycle::Plan;

    use super::*;
    use crate::learner::stir::Choice;
    use crate::shared::tests::{Parts, asked, at, class, id};
    use crate::world::pods::tests::pod;

    /// Ada is let in, and bob waits for her place among those who start: whether he has it after she was looked at.
    fn looked_at(parts: &Parts, ada: Known, waits: Option<&Waits>) -> (Plan, bool) {
        let shared = &parts.shared;
        {
            let mut world = shared.world();
            world.classes.insert("free".to_owned(), class(0));
            world.put_learner(&id("ada"), ada);
            world.gate.ask(&id("ada"), at(0));
            assert_eq!(world.gate.admit(at(0)).0, [id("ada")]);
            world.gate.ask(&id("bob"), at(0));
            assert_eq!(world.gate.admit(at(0)).0, []);
        }
        let Seen::Learner(look) = look(shared, &id("ada"), waits, at(2)) else {
            panic!("she is there");
        };
        let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, at(2));
        shared.keep_place(&id("ada"), &plan);
        let is_in = shared.world().gate.is_in(&id("bob"));
        (plan, is_in)
    }

    #[tokio::test]
    async fn who_is_tried_again_later_has_no_place() {
        let parts = Parts::new(1, 1);
        let mut ada = asked(3);
        ada.status.state = LearnerState::Failed;
        ada.status.young_deaths = 4;
        ada.status.retry_time = Some(at(4));
        assert!(looked_at(&parts, ada, None).1);
        assert!(!parts.shared.world().gate.is_in(&id("ada")));
    }

    #[tokio::test]
    async fn whose_pod_no_node_takes_lives_and_holds_up_nobody() {
        for (waits, is_held_up) in [("no node takes it: no room", false), ("", true)] {
            let parts = Parts::new(2, 1);
            let mut hers = pod(1, 1, Life::Starting);
            hers.waits = waits.to_owned();
            {
                let mut world = parts.shared.world();
                let stir = world.stirs.entry(id("ada")).or_default();
                stir.choice = Some(Choice {
                    pod: hers.uid,
                    start_kind: StartKind::Cold,
                });
                world.pods.put(hers);
            }
            let (_, is_in) = looked_at(&parts, asked(3), None);
            assert_eq!(is_in, !is_held_up, "{waits:?}");
            assert!(parts.shared.world().gate.is_in(&id("ada")));
        }
    }

    #[tokio::test]
    async fn who_waits_for_an_older_state_has_no_place_and_says_for_what() {
        let parts = Parts::new(1, 1);
        let waits = Waits::new("the vault: it is away", at(60));
        let (plan, is_in) = looked_at(&parts, asked(3), Some(&waits));
        assert!(is_in);
        assert_eq!(
            (plan.status.state, plan.effects),
            (LearnerState::Waking, vec![])
        );
        assert_eq!(
            plan.status.detail,
            "waits for a place: an older state of the workspace is taken first: the vault: it is away"
        );
    }
}
