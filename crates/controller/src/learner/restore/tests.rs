use carrel_core::learner::{Desired, PodRef, Status};
use carrel_crd::Beside;
use carrel_protocol::Problem;

use super::*;
use crate::shared::tests::{Parts, at, id};
use crate::world::pod::Life;
use crate::world::pods::tests::pod;

fn snapshot(digits: &str) -> SnapshotId {
    digits.repeat(32).parse().unwrap()
}

fn known(wish: Option<&str>, noted: Option<&str>, awake: bool) -> Known {
    let pod = PodRef {
        name: "learners-0/w-1".to_owned(),
        uid: pod(1, 1, Life::Running).uid,
        address: "http://10.0.0.7:7080".to_owned(),
    };
    Known {
        uid: "u".to_owned(),
        version: 1,
        generation: None,
        class: "free".to_owned(),
        desired: Desired::default(),
        restore: wish.map(snapshot),
        status: Status {
            epoch: Epoch(4),
            pod: Some(pod).filter(|_| awake),
            ..Status::default()
        },
        beside: Beside {
            restore: noted.map(|digits| RestoreStatus {
                snapshot_id: snapshot(digits).to_string(),
                message: String::new(),
            }),
            ..Beside::default()
        },
        is_visited: true,
    }
}

#[test]
fn what_is_wanted_is_asked_for_once_and_only_while_there_is_no_incarnation() {
    let asked = |digits| {
        let (snapshot, epoch) = (snapshot(digits), Epoch(4));
        Some(Due::Ask(Question { snapshot, epoch }))
    };
    let table = [
        (None, None, None),
        (Some("1a"), None, asked("1a")),
        (Some("1a"), Some("1a"), None),
        (Some("2b"), Some("1a"), asked("2b")),
    ];
    for (wish, noted, expected) in table {
        let case = format!("{wish:?} {noted:?}");
        assert_eq!(due(&known(wish, noted, false)), expected, "{case}");
        assert_eq!(due(&known(wish, noted, true)), None, "{case}, awake");
    }
    for awake in [false, true] {
        let withdrawn = known(None, Some("1a"), awake);
        assert_eq!(due(&withdrawn), Some(Due::Forget));
    }
}

#[test]
fn only_what_will_not_change_by_itself_is_final() {
    let is_final = |code| {
        let problem = Error::Refused(Box::new(Problem::new(code, "why")));
        matches!(refusal(&problem), Answer::Refused(_))
    };
    for code in [
        Code::NotFound,
        Code::Forbidden,
        Code::SnapshotUnreadable,
        Code::StaleEpoch,
    ] {
        assert!(is_final(code), "{code}");
    }
    for code in [
        Code::Unavailable,
        Code::Internal,
        Code::Unauthenticated,
        Code::InvalidBody,
    ] {
        assert!(!is_final(code), "{code}");
    }
    let odd = Error::Unreadable(404);
    assert!(matches!(refusal(&odd), Answer::Away(_)), "an older vault");
}

#[tokio::test]
async fn who_waits_says_why_the_vault_did_not_serve_until_it_does() {
    let parts = Parts::new(1, 1);
    let (shared, ada) = (&parts.shared, id("ada"));
    shared
        .world()
        .put_learner(&ada, known(Some("1a"), None, false));
    let Doing::Asking(_, 0, waits) = take_up(shared, &ada, at(0)) else {
        panic!("it is asked for");
    };
    assert_eq!(waits.why, FIRST);
    let Doing::Waiting(waits) = take_up(shared, &ada, at(1)) else {
        panic!("it is asked for once");
    };
    assert_eq!(waits.why, FIRST);
    set(
        shared,
        &ada,
        Restoring::Again(1, at(9), "it is away".to_owned()),
    );
    let why = format!("{FIRST}: it is away");
    let Doing::Waiting(waits) = take_up(shared, &ada, at(8)) else {
        panic!("not before its time");
    };
    assert_eq!((&waits.why, waits.until), (&why, at(9)));
    for _ in 0..2 {
        match take_up(shared, &ada, at(9)) {
            Doing::Asking(_, 1, waits) | Doing::Waiting(waits) => assert_eq!(waits.why, why),
            _ => panic!("it is asked again, and waited for"),
        }
    }
}
