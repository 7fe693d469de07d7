//! What holds of the plan for any wish and any observation.

use carrel_core::class::ClassSpec;
use carrel_core::invariants::plan::PlanRule;
use carrel_core::learner::{Desired, DesiredState, LearnerState};
use carrel_core::lifecycle::{Effect, Observed, Plan, PodSeen, Policy, Wish, plan, wish};
use proptest::prelude::*;

use crate::any;

fn policy() -> Policy {
    Policy::of(&ClassSpec::default())
}

/// Plans again and again while nothing is seen to change.
fn planned_in_a_row(desired: &Desired, observed: &Observed, times: usize) -> Vec<Plan> {
    let mut observed = observed.clone();
    (0..times)
        .map(|_| {
            let plan = plan(desired, &observed, &policy(), any::second(any::NOW));
            observed.status = plan.status.clone();
            plan
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_observation_has_a_plan_that_keeps_every_rule(
        desired in any::desired(),
        observed in any::observed(),
    ) {
        let plan = plan(&desired, &observed, &policy(), any::second(any::NOW));
        prop_assert_eq!(PlanRule::broken(&desired, &observed, &plan), None);
    }

    #[test]
    fn planning_again_with_nothing_new_comes_to_rest_and_counts_nothing_twice(
        desired in any::desired(),
        observed in any::observed(),
    ) {
        // The longest way: its incarnation has ended, no pod could be made, it is tried anew, and it waits for a place.
        let plans = planned_in_a_row(&desired, &observed, 6);
        prop_assert_eq!(&plans[4].status, &plans[5].status);
        prop_assert_eq!(&plans[4].effects, &plans[5].effects);
        let last = &plans[5].status;
        prop_assert!(last.epoch <= observed.status.epoch.max(observed.fence).next());
        prop_assert!(last.young_deaths <= observed.status.young_deaths + 2);
    }

    #[test]
    fn a_learner_that_is_wanted_asleep_or_gone_gets_no_pod_and_no_epoch(
        mut desired in any::desired(),
        observed in any::observed(),
    ) {
        if !desired.deleting {
            desired.state = DesiredState::Asleep;
        }
        for plan in planned_in_a_row(&desired, &observed, 4) {
            let starts = |effect: &Effect| {
                matches!(effect, Effect::CreatePod { .. } | Effect::Assign { .. })
            };
            prop_assert!(!plan.effects.iter().any(starts), "{:?}", plan.effects);
            prop_assert_eq!(plan.status.epoch, observed.status.epoch);
        }
    }

    #[test]
    fn nothing_starts_without_a_grant_or_before_its_time(
        desired in any::desired(),
        mut observed in any::observed(),
        admitted in any::<bool>(),
    ) {
        observed.status.pod = None;
        observed.admitted = admitted;
        let now = any::second(any::NOW);
        let early = observed.status.retry_time.is_some_and(|retry| now < retry);
        let plan = plan(&desired, &observed, &policy(), now);
        let creates = plan.effects.iter().any(|e| matches!(e, Effect::CreatePod { .. }));
        let raises = plan.status.epoch > observed.status.epoch && plan.status.pod.is_some();
        // A pod that failed to start is counted first; what is counted may be tried at once.
        prop_assert!(!(creates || raises) || (admitted && !early));
    }

    #[test]
    fn whoever_waits_says_for_want_of_what(
        desired in any::desired(),
        mut observed in any::observed(),
        starts in any::<bool>(),
    ) {
        let why = "no node takes it".to_owned();
        (observed.status.pod, observed.status.retry_time) = (None, None);
        (observed.pod, observed.admitted) = (PodSeen::None, false);
        if starts {
            let (pod, since) = (any::pod(1).uid, any::second(any::NOW));
            observed.pod = PodSeen::Starting { pod, since, detail: why.clone() };
        } else {
            observed.wanting = why.clone();
        }
        let plan = plan(&desired, &observed, &policy(), any::second(any::NOW));
        if wish(&desired, &observed.status) == Wish::Awake {
            prop_assert!(plan.status.detail.ends_with(&why), "{}", plan.status.detail);
        }
    }

    #[test]
    fn erasing_ends_only_when_no_pod_is_left(
        desired in any::desired(),
        observed in any::observed(),
    ) {
        let plan = plan(&desired, &observed, &policy(), any::second(any::NOW));
        if plan.effects.contains(&Effect::FinishErase) {
            prop_assert!(desired.deleting);
            prop_assert_eq!(&plan.status.pod, &None);
            prop_assert_eq!(observed.pod.uid(), None);
        }
        if desired.deleting && plan.status.pod.is_none() {
            prop_assert_eq!(plan.status.state, LearnerState::Deleting);
        }
    }

    #[test]
    fn a_plan_looks_again_in_the_future_or_at_once_and_within_the_longest_deadline(
        desired in any::desired(),
        observed in any::observed(),
    ) {
        let now = any::second(any::NOW);
        let plan = plan(&desired, &observed, &policy(), now);
        if let Some(again) = plan.requeue_at {
            prop_assert!(again >= now);
            let longest = 2 * policy().max_awake.as_secs();
            prop_assert!(again.duration_since(now).as_secs() <= i64::try_from(longest).unwrap());
        }
    }
}
