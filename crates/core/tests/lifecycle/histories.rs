//! What holds in any history of one learner.

use carrel_core::Epoch;
use carrel_core::learner::{DesiredState, LearnerState};
use carrel_core::lifecycle::{MOST_UNASKED, gave_up, plan};
use proptest::prelude::*;

use crate::world::{Planner, Step, World};

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Plan),
        12 => Just(Step::PodGoesOn),
        4 => Just(Step::Wake),
        2 => (0usize..2).prop_map(|effects| Step::PlanAndDie { effects }),
        2 => Just(Step::StaleFleet),
        1 => Just(Step::Forget),
        2 => Just(Step::PodDozes),
        1 => Just(Step::PodDiscards),
        2 => Just(Step::PodDies),
        1 => Just(Step::PodVanishes),
        1 => Just(Step::PodRefuses),
        2 => (1i64..20).prop_map(|seconds| Step::Pass { seconds }),
        1 => (300i64..80_000).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Wish(DesiredState::Auto)),
        1 => Just(Step::Wish(DesiredState::Running)),
        1 => Just(Step::Wish(DesiredState::Asleep)),
        1 => any::<bool>().prop_map(Step::Admit),
        1 => any::<bool>().prop_map(Step::MakeRoom),
        1 => Just(Step::Erase),
        1 => Just(Step::Renew),
    ]
}

/// Plays a history and gives its end, or the first thing that the judge finds.
pub(crate) fn play(
    planner: Planner,
    fence: u64,
    steps: &[Step],
    judge: impl Fn(&World) -> Option<String>,
) -> Result<World, String> {
    let mut world = World::new(planner, Epoch(fence));
    for step in steps {
        world.take(*step);
        if let Some(finding) = judge(&world) {
            return Err(finding);
        }
    }
    Ok(world)
}

fn strictly(world: &World) -> Option<String> {
    let rule = world.broken_rule().map(|rule| rule.to_string());
    rule.or_else(|| {
        world
            .broken_invariant()
            .map(|invariant| invariant.to_string())
    })
}

fn has_come_to(world: &mut World, wanted: &[LearnerState]) -> bool {
    (0..60).any(|_| {
        for step in [Step::Plan, Step::PodGoesOn, Step::Pass { seconds: 11 }] {
            world.take(step);
        }
        wanted.contains(&world.status.state)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_an_invariant(
        fence in 0u64..3,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let played = play(plan, fence, &steps, strictly);
        prop_assert!(played.is_ok(), "{:?}", played.err());
    }

    #[test]
    fn whatever_happened_a_message_wakes_the_learner_once_things_go_well_again(
        fence in 0u64..3,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = play(plan, fence, &steps, strictly).unwrap();
        world.desired.deleting = false;
        let well = [Step::Wish(DesiredState::Auto), Step::MakeRoom(false), Step::Admit(true)];
        for step in well.into_iter().chain([Step::Wake]) {
            world.take(step);
        }
        let epoch = world.status.epoch;
        prop_assert!(has_come_to(&mut world, &[LearnerState::Ready, LearnerState::Busy]), "{world:?}");
        prop_assert!(world.status.epoch >= epoch);
        prop_assert_eq!(strictly(&world), None);
    }

    #[test]
    fn whatever_happened_the_wish_to_sleep_ends_in_silence(
        fence in 0u64..3,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = play(plan, fence, &steps, strictly).unwrap();
        world.desired.deleting = false;
        world.take(Step::Wish(DesiredState::Asleep));
        prop_assert!(has_come_to(&mut world, &[LearnerState::Asleep]), "{world:?}");
        for _ in 0..8 {
            world.take(Step::Plan);
        }
        let rest = world.facts.rest;
        prop_assert!(rest.is_some_and(|rest| rest.pods + rest.effects + rest.timers == 0), "{world:?}");
    }
}

/// Plans while every pod that is made dies before it is anything, until the learner rests; how many were made.
pub(crate) fn pods_made_in_vain(world: &mut World) -> Option<usize> {
    let before = world.pods_made();
    for _ in 0..60 {
        for step in [Step::Plan, Step::PodDies, Step::Pass { seconds: 11 }] {
            world.take(step);
        }
        let rest = world.facts.rest;
        if rest.is_some_and(|rest| rest.pods + rest.effects + rest.timers + rest.writes == 0) {
            return Some(world.pods_made() - before);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_learner_whose_pod_can_never_be_made_rests_in_the_end_and_is_tried_as_often_when_asked_anew(
        fence in 0u64..3,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = play(plan, fence, &steps, strictly).unwrap();
        world.desired.deleting = false;
        for step in [Step::Wish(DesiredState::Auto), Step::MakeRoom(false), Step::Admit(true)] {
            world.take(step);
        }
        world.take(Step::Wake);
        // What went on before is ended first.
        prop_assert!(pods_made_in_vain(&mut world).is_some(), "{world:?}");
        for _ in 0..2 {
            let epoch = world.status.epoch;
            world.take(Step::Wake);
            let made = pods_made_in_vain(&mut world);
            prop_assert_eq!(made, Some(MOST_UNASKED as usize), "{:?}", world);
            prop_assert!(world.status.epoch > epoch && gave_up(&world.status));
        }
        prop_assert_eq!(world.broken_rule(), None);
    }
}

/// Plans so often, with such a pause, while every pod that is made dies before it is anything; how many were made.
fn pods_made_in_vain_within(world: &mut World, times: usize, seconds: i64) -> usize {
    let before = world.pods_made();
    for _ in 0..times {
        for step in [
            Step::Plan,
            Step::Plan,
            Step::PodDies,
            Step::Plan,
            Step::Pass { seconds },
        ] {
            world.take(step);
        }
    }
    world.pods_made() - before
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_that_is_kept_awake_and_can_have_no_pod_is_tried_ever_more_seldom_and_at_once_when_there_is_a_reason(
        fence in 0u64..3,
        steps in prop::collection::vec(step(), 1..60),
        awaited in 0usize..600,
    ) {
        let mut world = play(plan, fence, &steps, strictly).unwrap();
        world.desired.deleting = false;
        for step in [Step::Wish(DesiredState::Running), Step::MakeRoom(false), Step::Admit(true)] {
            world.take(step);
        }
        // What was asked for before is given up, and what went on is ended.
        pods_made_in_vain_within(&mut world, 20, 10);
        let epoch = world.status.epoch;
        let made = pods_made_in_vain_within(&mut world, 24 * 60, 60);
        // A write for each pod, at most: no more often than every ten minutes in the end.
        prop_assert!((135..=155).contains(&made), "{made} pods in a day");
        prop_assert_eq!(world.status.epoch, epoch, "nobody waits for the end of any");
        prop_assert_eq!(world.status.state, LearnerState::Failed);

        for step in [Step::Wake, Step::Renew] {
            pods_made_in_vain_within(&mut world, awaited, 1);
            let epoch = world.status.epoch;
            world.take(step);
            prop_assert_eq!(pods_made_in_vain_within(&mut world, 1, 1), 1, "{:?} is no reason", step);
            prop_assert_eq!(pods_made_in_vain_within(&mut world, 10, 1), MOST_UNASKED as usize - 1);
            let is_given_up = world.status.epoch > epoch && gave_up(&world.status);
            prop_assert_eq!(is_given_up, matches!(step, Step::Wake), "who asked sees the end: {:?}", world);
        }
        prop_assert_eq!(strictly(&world), None);
    }
}

#[test]
fn an_ordinary_day_takes_one_epoch_and_leaves_nothing_at_risk() {
    let go_on = [Step::PodGoesOn, Step::Plan];
    let day = [
        Step::Wake,
        Step::Plan,
        Step::Plan,
        Step::PodGoesOn,
        Step::Plan,
        Step::Plan,
    ]
    .into_iter()
    .chain(go_on.into_iter().cycle().take(6))
    .chain([
        Step::PodDozes,
        Step::Plan,
        Step::PodGoesOn,
        Step::Plan,
        Step::Plan,
    ])
    .collect::<Vec<_>>();
    let world = play(plan, 0, &day, strictly).unwrap();
    assert_eq!(world.status.epoch, Epoch(1));
    assert_eq!(world.status.state, LearnerState::Asleep);
    assert_eq!(world.facts.acts.len(), 1);
    assert!(world.facts.removed_pods[0].was_saved);
    assert!(world.facts.rest.is_some());
}
