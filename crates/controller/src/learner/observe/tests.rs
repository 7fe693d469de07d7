use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::learner::LearnerState;

use super::*;
use crate::world::pods::tests::pod;

fn id() -> LearnerId {
    "ada".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_783_591_200 + second).unwrap()
}

fn status(state: LearnerState) -> Status {
    let seen = pod(1, 1, Life::Running);
    Status {
        epoch: Epoch(4),
        state,
        since: Some(at(0)),
        pod: Some(PodRef {
            name: "learners-0/w-1".to_owned(),
            uid: seen.uid,
            address: "http://10.0.0.7:7080".to_owned(),
        }),
        ..Status::default()
    }
}

fn hello(phase: Said, epoch: u64) -> Hello {
    Hello {
        pod: pod(1, 1, Life::Running).uid,
        learner: Some(id()),
        epoch: Some(Epoch(epoch)),
        phase,
        detail: String::new(),
        agent_connected: true,
        restore_ms: None,
        agent_ms: None,
        quiet_since: None,
        committed: true,
        fell_back: false,
        fence: None,
        revision: 3,
    }
}

fn see(state: LearnerState, seen: Option<&SeenPod>, stir: &Stir, now: Timestamp) -> PodSeen {
    let status = status(state);
    let of = status.pod.clone().unwrap();
    named(&id(), &status, &of, seen, stir, now)
}

#[test]
fn a_new_leader_asks_whoever_was_not_ready_and_leaves_alone_whoever_was() {
    let running = pod(1, 1, Life::Running);
    let stir = Stir::default();
    let ours = see(LearnerState::Waking, Some(&running), &stir, at(9));
    assert!(matches!(ours, PodSeen::Blank { .. }), "{ours:?}");
    let mut stir = Stir::default();
    stir.finds(Some(running.uid), at(5));
    stir.finds(Some(running.uid), at(7));
    let waking = see(LearnerState::Waking, Some(&running), &stir, at(9));
    let asked = PodSeen::Starting {
        pod: running.uid,
        since: at(5),
        detail: String::new(),
    };
    assert_eq!(waking, asked, "it is asked first");
    stir.hears(running.uid, hello(Said::Blank, 3), at(8));
    let blank = see(LearnerState::Waking, Some(&running), &stir, at(9));
    assert!(matches!(blank, PodSeen::Blank { .. }), "{blank:?}");
    let stir = Stir::default();
    let ready = see(LearnerState::Ready, Some(&running), &stir, at(9));
    assert!(
        matches!(
            ready,
            PodSeen::Assigned {
                phase: Phase::Ready,
                ..
            }
        ),
        "{ready:?}"
    );
}

#[test]
fn a_sidecar_is_believed_about_its_own_incarnation_alone() {
    let running = pod(1, 1, Life::Running);
    let mut stir = Stir::default();
    stir.hears(running.uid, hello(Said::Restoring, 3), at(1));
    let other = see(LearnerState::Waking, Some(&running), &stir, at(9));
    assert!(matches!(other, PodSeen::Blank { .. }), "{other:?}");
    stir.hears(running.uid, hello(Said::Restoring, 4), at(2));
    let ours = see(LearnerState::Waking, Some(&running), &stir, at(9));
    assert!(
        matches!(
            ours,
            PodSeen::Assigned {
                phase: Phase::Restoring,
                ..
            }
        ),
        "{ours:?}"
    );
}

#[test]
fn silence_alone_is_not_death_but_with_a_silent_node_it_is() {
    let mut running = pod(1, 1, Life::Running);
    let mut stir = Stir::default();
    stir.misses(running.uid, at(10));
    stir.misses(running.uid, at(15));
    let silent = see(LearnerState::Ready, Some(&running), &stir, at(60));
    assert_eq!(
        silent,
        PodSeen::Starting {
            pod: running.uid,
            since: at(10),
            detail: String::new(),
        }
    );
    running.ready = false;
    let soon = see(LearnerState::Ready, Some(&running), &stir, at(20));
    assert!(matches!(soon, PodSeen::Starting { .. }), "{soon:?}");
    let late = see(LearnerState::Ready, Some(&running), &stir, at(21));
    assert!(
        matches!(
            late,
            PodSeen::Exited {
                ending: Ending::Died,
                ..
            }
        ),
        "{late:?}"
    );
}

#[test]
fn a_pod_that_is_deleted_drains_until_its_time_is_over_and_its_node_had_time_to_say_so() {
    let leaving = pod(1, 1, Life::Leaving { until: at(30) });
    let stir = Stir::default();
    let drains = see(LearnerState::Ready, Some(&leaving), &stir, at(40));
    assert!(
        matches!(
            drains,
            PodSeen::Assigned {
                phase: Phase::Draining,
                ..
            }
        ),
        "{drains:?}"
    );
    let never_ready = see(LearnerState::Waking, Some(&leaving), &stir, at(20));
    assert!(
        matches!(
            never_ready,
            PodSeen::Assigned {
                phase: Phase::Restoring,
                ..
            }
        ),
        "it would not be wanted any more: {never_ready:?}"
    );
    let lost = see(
        LearnerState::Ready,
        Some(&leaving),
        &stir,
        at(30) + names::NODE_GONE + Duration::from_millis(1),
    );
    assert!(
        matches!(
            lost,
            PodSeen::Exited {
                ending: Ending::Died,
                ..
            }
        ),
        "{lost:?}"
    );
}

#[test]
fn the_last_word_counts_also_of_a_pod_that_is_gone() {
    let farewell = Farewell {
        ending: Ending::Slept,
        committed: true,
        fell_back: false,
        fence: None,
        snapshot_id: None,
        reason: String::new(),
    };
    let ended = Life::Ended {
        farewell: Some(farewell),
        reason: "its sidecar ended with status 0".to_owned(),
    };
    let gone = SeenPod {
        gone: true,
        ..pod(1, 1, ended)
    };
    let seen = see(LearnerState::Ready, Some(&gone), &Stir::default(), at(9));
    let PodSeen::Exited {
        ending,
        committed,
        reason,
        ..
    } = seen
    else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (ending, committed, reason.as_str()),
        (Ending::Slept, true, "it fell asleep")
    );
    let nothing = see(LearnerState::Ready, None, &Stir::default(), at(9));
    assert_eq!(nothing, PodSeen::None);
}

#[test]
fn a_chosen_pod_that_is_deleted_before_it_is_ready_was_never_born() {
    let stir = Stir::default();
    let starting = pod(1, 1, Life::Starting);
    let choice = Choice {
        pod: starting.uid,
        start_kind: StartKind::Cold,
    };
    let seen = |pod: &SeenPod| chosen(choice, pod, &stir, 7080, at(5));
    assert!(matches!(seen(&starting), PodSeen::Starting { .. }));
    let PodSeen::Blank {
        pod: blank,
        start_kind,
    } = seen(&pod(1, 1, Life::Running))
    else {
        panic!("it is ready");
    };
    assert_eq!(
        (blank.name.as_str(), blank.address.as_str()),
        ("learners-0/w-1", "http://10.0.0.7:7080")
    );
    assert_eq!(start_kind, StartKind::Cold);
    assert!(matches!(
        seen(&pod(1, 1, Life::Leaving { until: at(9) })),
        PodSeen::Unborn { pod: Some(_), .. }
    ));
}

#[test]
fn the_sidecar_of_a_chosen_pod_is_believed_before_its_kubelet_tells() {
    let starting = pod(1, 1, Life::Starting);
    let choice = Choice {
        pod: starting.uid,
        start_kind: StartKind::Cold,
    };
    let seen = |of: &SeenPod, answered| {
        let mut stir = Stir::default();
        stir.answered = Some((of.uid, answered));
        chosen(choice, &starting, &stir, 7080, at(5))
    };
    let PodSeen::Starting { detail, .. } =
        seen(&starting, Answered::NotYet("it can reach".to_owned()))
    else {
        panic!("it takes nobody");
    };
    assert_eq!(detail, "it can reach");
    assert!(matches!(
        seen(&starting, Answered::Ready),
        PodSeen::Blank { .. }
    ));
    // What another said is not its word.
    let other = pod(2, 1, Life::Starting);
    assert!(matches!(
        seen(&other, Answered::Ready),
        PodSeen::Starting { .. }
    ));
}
