use std::sync::Arc;

use super::super::look::{Seen, look};
use super::*;
use crate::shared::tests::{Parts, asked, at, id, ready};
use crate::world::pods::tests::pod;

const WRITES: &str = "carrel_api_writes_total{resource=\"learners/status\",verb=\"update\"}";

/// What is planned for one of those who wait, and whether it is written.
async fn looks(shared: &Handle, id: &LearnerId, now: Timestamp) -> bool {
    let Seen::Learner(look) = look(shared, id, None, now) else {
        panic!("there is none");
    };
    let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, now);
    // The API server is away.
    write(shared, id, &look, &plan, now).await.is_some()
}

#[tokio::test]
async fn of_a_crowd_that_waits_some_are_explained_and_each_after_a_while() {
    let parts = Parts::new(0, 0);
    let names: Vec<_> = (0..300).map(|number| id(&format!("l{number}"))).collect();
    for name in &names {
        parts.shared.world().put_learner(name, asked(3));
    }
    for (second, written) in [(0, "0"), (2, "0"), (3, "101"), (4, "106"), (33, "207")] {
        for name in &names {
            looks(&parts.shared, name, at(second)).await;
        }
        assert_eq!(parts.metric(WRITES), written, "at {second} s");
    }
}

#[tokio::test]
async fn what_is_waited_for_for_a_moment_is_not_explained() {
    let parts = Parts::new(0, 0);
    let ada = id("ada");
    parts.shared.world().put_learner(&ada, asked(3));
    let full = |why: &str| {
        let mut world = parts.shared.world();
        world.stirs.entry(id("ada")).or_default().wanting = why.to_owned();
    };
    for (second, why, is_written) in [
        (0, "", false),
        (2, "they are full", false),
        (4, "they are full", false),
        (5, "they are full", true),
        (6, "", false),
        (9, "", true),
    ] {
        full(why);
        let written = looks(&parts.shared, &ada, at(second)).await;
        assert_eq!(written, is_written, "at {second} s");
    }
}

#[tokio::test]
async fn from_the_wish_to_the_pod_is_a_stage_of_a_wake() {
    let parts = Parts::new(1, 1);
    let (ada, running) = (id("ada"), pod(1, 1, Life::Running));
    parts.shared.world().put_learner(&ada, asked(3));
    let Seen::Learner(mut look) = look(&parts.shared, &ada, None, at(0)) else {
        panic!("she is there");
    };
    look.observed.status.since = Some(at(0));
    look.observed.pod = PodSeen::Blank {
        pod: ready(3, &running).status.pod.unwrap(),
        start_kind: StartKind::Warm,
    };
    let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, at(7));
    assert!(plan.status.pod.is_some(), "{plan:?}");
    scheduled(&parts.shared, &look, &plan, at(7));
    look.known = Arc::new(ready(4, &running));
    scheduled(&parts.shared, &look, &plan, at(9));
    let of = |what| {
        format!("carrel_wake_duration_seconds_{what}{{start_kind=\"warm\",stage=\"schedule\"}}")
    };
    assert_eq!(parts.metric(&of("count")), "1", "it has one already");
    assert_eq!(parts.metric(&of("sum")), "7.0");
}

/// Ada's incarnation has ended, which is written: how many may start now of bob alone.
fn ended(parts: &Parts) -> usize {
    let (ada, running) = (id("ada"), pod(1, 1, Life::Running));
    let mut world = parts.shared.world();
    world.put_learner(&ada, ready(3, &running));
    world.gate.adopt(&ada, Progress::Lives, at(0));
    drop(world);
    let Seen::Learner(mut look) = look(&parts.shared, &ada, None, at(1)) else {
        panic!("she is there");
    };
    look.observed.pod = PodSeen::None;
    let plan = lifecycle::plan(&look.desired, &look.observed, &look.policy, at(1));
    let mut known = asked(3);
    known.version = 2;
    wrote(&parts.shared, &ada, Some(running.uid), &plan, known, at(1));
    let mut world = parts.shared.world();
    world.gate.ask(&id("bob"), at(1));
    world.gate.admit(at(1)).0.len()
}

#[tokio::test]
async fn whoever_goes_on_at_once_after_an_end_starts_once_more() {
    let parts = Parts::new(2, 1);
    assert_eq!(ended(&parts), 0, "one at a time");
    assert!(parts.shared.world().gate.is_in(&id("ada")));
}

#[tokio::test]
async fn whoever_made_room_and_rests_stands_in_the_line_again() {
    let parts = Parts::new(1, 1);
    let mut world = parts.shared.world();
    world.stirs.entry(id("ada")).or_default().make_room = true;
    drop(world);
    assert_eq!(ended(&parts), 1, "her place is bob's");
    assert!(!parts.shared.world().stirs[&id("ada")].make_room);
}
