use std::sync::Weak;

use carrel_core::learner::{Condition, ConditionStatus};
use carrel_core::lifecycle::MOST_UNASKED;
use carrel_core::{EventVersion, PodUid};
use uuid::Uuid;

use super::*;

fn waker() -> Waker {
    let learner = "ada".parse().expect("a label");
    Waker::new(Arc::new(Hub::new(learner, EventVersion(0), Weak::new())))
}

fn status(epoch: u64, state: LearnerState, has_pod: bool) -> Status {
    let pod = PodRef {
        name: format!("w-{epoch}"),
        uid: PodUid(Uuid::from_u128(epoch.into())),
        address: format!("unix:/run/{epoch}.sock"),
    };
    Status {
        epoch: Epoch(epoch),
        state,
        pod: has_pod.then_some(pod),
        ..Status::default()
    }
}

#[test]
fn a_pod_that_takes_turns_is_tried_and_any_other_asks_for_the_next_epoch() {
    use LearnerState::{Asleep, Busy, Draining, Failed, Ready, Restoring, Snapshotting, Waking};
    for state in [Waking, Restoring, Ready, Busy] {
        let seen = status(4, state, true);
        let pod = seen.pod.clone().expect("a pod");
        assert_eq!(waker().look(&seen), Look::Try(pod));
    }
    for state in [Asleep, Draining, Snapshotting, Failed] {
        assert_eq!(waker().look(&status(4, state, true)), Look::Ask(Epoch(4)));
    }
    assert_eq!(waker().look(&status(4, Waking, false)), Look::Ask(Epoch(4)));
    assert_eq!(
        waker().look(&status(4, LearnerState::Deleting, false)),
        Look::Gone
    );
}

#[test]
fn an_incarnation_that_was_dismissed_is_not_tried_again() {
    let mut waker = waker();
    waker.dismiss(Epoch(4));
    assert_eq!(
        waker.look(&status(4, LearnerState::Ready, true)),
        Look::Ask(Epoch(4))
    );
    let next = status(5, LearnerState::Waking, true);
    assert!(matches!(waker.look(&next), Look::Try(_)));
}

#[test]
fn the_end_of_the_one_that_was_waited_for_is_seen() {
    let mut waker = waker();
    waker.tried = Some(Epoch(4));
    assert!(matches!(
        waker.look(&status(4, LearnerState::Restoring, true)),
        Look::Try(_)
    ));
    for seen in [
        status(4, LearnerState::Failed, false),
        status(4, LearnerState::Draining, true),
        status(5, LearnerState::Waking, true),
    ] {
        assert_eq!(waker.look(&seen), Look::Ended(Epoch(4)));
    }
}

#[test]
fn what_was_asked_for_and_given_up_is_the_end_and_what_was_given_up_before_is_not() {
    let mut waker = waker();
    assert_eq!(waker.look(&given_up(4)), Look::Ask(Epoch(4)));
    waker.asked = Some(Epoch(4));
    assert_eq!(waker.look(&given_up(4)), Look::Ask(Epoch(4)));
    assert_eq!(waker.look(&given_up(5)), Look::GivenUp);
    let slept = status(5, LearnerState::Asleep, false);
    assert_eq!(waker.look(&slept), Look::Ask(Epoch(5)));
}

fn given_up(epoch: u64) -> Status {
    Status {
        conditions: vec![Condition {
            name: names::ASSIGNED.to_owned(),
            status: ConditionStatus::False,
            reason: names::GIVEN_UP.to_owned(),
            message: String::new(),
            last_transition_time: Timestamp::UNIX_EPOCH,
        }],
        ..status(epoch, LearnerState::Asleep, false)
    }
}

#[test]
fn what_was_asked_for_during_the_last_try_is_asked_for_once_more_and_not_twice() {
    let failed = |epoch, young_deaths| Status {
        young_deaths,
        ..status(epoch, LearnerState::Failed, false)
    };
    let now = Timestamp::UNIX_EPOCH;
    let mut early = waker();
    early.has_asked(Epoch(4), &failed(4, MOST_UNASKED - 2), now);
    assert_eq!(early.look(&given_up(5)), Look::GivenUp);
    let mut late = waker();
    late.has_asked(Epoch(4), &failed(4, MOST_UNASKED - 1), now);
    assert_eq!(late.look(&given_up(5)), Look::Ask(Epoch(5)));
    // One that is wanted `Running` fails on and on.
    late.has_asked(Epoch(5), &failed(5, MOST_UNASKED), now);
    assert_eq!(late.look(&given_up(6)), Look::GivenUp);
    // In a long wait no try is under way: asking begins a whole row.
    let waits = Status {
        retry_time: Some(now + SignedDuration::from_mins(5)),
        ..failed(4, MOST_UNASKED)
    };
    let mut asks = waker();
    asks.has_asked(Epoch(4), &waits, now);
    assert_eq!(asks.look(&given_up(5)), Look::GivenUp);
}

#[test]
fn who_waits_long_is_told_something_true() {
    let failed = Status {
        retry_time: Some(Timestamp::UNIX_EPOCH),
        detail: "no such image".to_owned(),
        ..status(4, LearnerState::Failed, false)
    };
    assert_eq!(waits_for(&failed, Timestamp::UNIX_EPOCH), TRYING_AGAIN);
    let kept = Status {
        detail: names::KEPT_ASLEEP.to_owned(),
        ..status(4, LearnerState::Asleep, false)
    };
    assert_eq!(waits_for(&kept, Timestamp::UNIX_EPOCH), KEPT_ASLEEP);
}

#[test]
fn a_short_wake_says_the_usual_and_a_long_one_what_it_waits_for() {
    let at = |second| Timestamp::from_second(second).expect("in range");
    let seen = Status {
        since: Some(at(100)),
        detail: "waits for a place".to_owned(),
        ..status(4, LearnerState::Waking, false)
    };
    assert_eq!(waits_for(&seen, at(101)), FETCHING);
    assert_eq!(waits_for(&seen, at(103)), "waits for a place");
}
