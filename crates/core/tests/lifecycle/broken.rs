//! Tests of the checks: a plan broken on purpose, once for each thing that the lifecycle must keep, is found.

use carrel_core::Epoch;
use carrel_core::invariants::Invariant;
use carrel_core::invariants::plan::PlanRule;
use carrel_core::learner::{Desired, LearnerState};
use carrel_core::lifecycle::{
    Effect, KillReason, Observed, Plan, PodSeen, Policy, Write, gave_up, names, plan,
};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rstest::rstest;

use crate::histories::{play, pods_made_in_vain, step};
use crate::world::{Planner, Step, World};

/// 1: the assignment leaves before epoch and pod are stored, and nobody asks for the fence.
fn assigns_before_storing(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let unfenced = Observed {
        fence: Epoch(0),
        ..o.clone()
    };
    let mut plan = plan(d, &unfenced, p, now);
    if plan.status.epoch > o.status.epoch
        && let Some(pod) = plan.status.pod.clone()
    {
        let epoch = plan.status.epoch;
        plan.effects.push(Effect::Assign { epoch, pod });
        plan.status = o.status.clone();
        plan.write = Write::Nothing;
    }
    plan
}

/// 1 and 2: the next pod gets the last one's epoch.
fn reuses_the_epoch(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if plan.status.epoch > o.status.epoch && o.status.epoch.0 > 0 {
        plan.status.epoch = o.status.epoch;
    }
    plan
}

/// 2: an epoch that is not above the fence.
fn forgets_the_fence(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if plan.status.epoch > o.status.epoch {
        plan.status.epoch = o.status.epoch.next();
    }
    plan
}

/// 5: a pod is removed while it lives.
fn removes_the_living(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    for effect in &mut plan.effects {
        if let Effect::AskToSleep { pod, .. } = effect {
            *effect = Effect::DeletePod { pod: *pod };
        }
    }
    plan
}

/// 5: nobody hears that something may be lost.
fn keeps_silent(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    plan.news.retain(|c| c.name != names::DATA_AT_RISK);
    plan
}

/// 5: a busy learner is ended to make room.
fn kills_to_make_room(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if let (true, PodSeen::Assigned { pod, .. }) = (o.make_room, &o.pod) {
        let (pod, reason) = (*pod, KillReason::NotWanted);
        plan.effects = vec![Effect::KillPod { pod, reason }];
    }
    plan
}

/// 7: a sleeping learner is looked at every minute.
fn polls_the_sleeping(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    plan.requeue_at.get_or_insert(now);
    plan
}

/// 7: a sleeping learner's status is stored whenever it is looked at.
fn writes_the_sleeping(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if plan.status.state == LearnerState::Asleep {
        plan.status.since = Some(now);
        plan.write = Write::Must;
    }
    plan
}

/// 7: what can never start is tried for ever, because no epoch ends the wish.
fn never_gives_up(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if gave_up(&plan.status) && plan.status.epoch > o.status.epoch {
        plan.status.epoch = o.status.epoch;
    }
    plan
}

/// Every state has a deadline: this one waits for ever.
fn has_no_deadline(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if plan.status.state == LearnerState::Busy {
        plan.requeue_at = None;
    }
    plan
}

/// What was counted is forgotten when the fleet restarts.
fn stores_nothing_at_once(d: &Desired, o: &Observed, p: &Policy, now: Timestamp) -> Plan {
    let mut plan = plan(d, o, p, now);
    if plan.write == Write::Must {
        plan.write = Write::May;
    }
    plan
}

/// Whether a judge finds something in many histories.
fn is_found(broken: Planner, judge: impl Fn(&World) -> bool) -> bool {
    let config = Config {
        cases: 5_000,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let histories = (0u64..3, prop::collection::vec(step(), 1..120));
    let judged = TestRunner::new_with_rng(config, rng).run(&histories, |(fence, steps)| {
        let judge = |world: &World| judge(world).then(|| "found".to_owned());
        match play(broken, fence, &steps, judge) {
            Ok(_) => Ok(()),
            Err(finding) => Err(TestCaseError::fail(finding)),
        }
    });
    matches!(judged, Err(TestError::Fail(..)))
}

#[test]
fn a_plan_that_never_gives_up_does_not_come_to_rest() {
    for (planner, rests) in [(plan as Planner, true), (never_gives_up, false)] {
        let mut world = World::new(planner, Epoch(0));
        world.take(Step::Wake);
        assert_eq!(pods_made_in_vain(&mut world).is_some(), rests);
    }
}

#[rstest]
#[case(assigns_before_storing, PlanRule::AssignsWhatIsStored)]
#[case(reuses_the_epoch, PlanRule::OnePodAnEpoch)]
#[case(forgets_the_fence, PlanRule::EpochsRise)]
#[case(removes_the_living, PlanRule::RemovesOnlyTheSaved)]
#[case(keeps_silent, PlanRule::RemovesOnlyTheSaved)]
#[case(kills_to_make_room, PlanRule::RemovesOnlyTheSaved)]
#[case(polls_the_sleeping, PlanRule::RestIsSilent)]
#[case(writes_the_sleeping, PlanRule::RestIsSilent)]
#[case(has_no_deadline, PlanRule::LooksAgain)]
#[case(stores_nothing_at_once, PlanRule::StoresFactsFirst)]
fn a_broken_plan_breaks_its_rule(#[case] broken: Planner, #[case] rule: PlanRule) {
    assert!(is_found(broken, |world| world.broken_rule() == Some(rule)));
}

#[rstest]
#[case(assigns_before_storing, Invariant::OnePodActs)]
#[case(reuses_the_epoch, Invariant::OnePodActs)]
#[case(removes_the_living, Invariant::LastGoodStays)]
#[case(keeps_silent, Invariant::LastGoodStays)]
#[case(polls_the_sleeping, Invariant::IdleCostsNothing)]
#[case(writes_the_sleeping, Invariant::IdleCostsNothing)]
fn what_a_broken_plan_causes_breaks_the_invariant(
    #[case] broken: Planner,
    #[case] invariant: Invariant,
) {
    assert!(is_found(broken, |world| !invariant.holds(&world.facts)));
}
