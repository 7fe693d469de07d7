//! The auditor sees who was replaced and was not refused.

use std::time::Instant;

use super::super::tests::named;
use super::{Refused, refused, seen};
use crate::audit::{Findings, Rule};
use crate::stale::{Asked, Late, Lease, Stale, Turn, What};

const REFUSAL: &str = "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"stale_epoch\"}";

/// Everybody who was replaced was refused.
pub(in crate::audit) fn all_refused() -> Stale {
    let turn = |id: &str| Turn {
        learner: "ada",
        id: id.to_owned(),
        text: "count".to_owned(),
    };
    let late = |what| Late {
        what,
        turn: turn("t1"),
        epoch: 3,
        fence: 4,
        answer: REFUSAL.to_owned(),
    };
    Stale {
        kept: Vec::new(),
        late: What::ALL.map(late).into(),
        asked: vec![Asked {
            what: "vault-1: GET /v1/learners/ada/key".to_owned(),
            answer: "409 Conflict {\"code\":\"stale_epoch\"}".to_owned(),
        }],
        lease: Some(Lease {
            turn: turn("t2"),
            gateway: "gateway-1",
            paused: Instant::now()..Instant::now(),
            is_let_go: true,
        }),
        missing: Vec::new(),
    }
}

type Change = fn(&mut Stale);

#[test]
fn whoever_was_replaced_must_be_refused_and_seen() {
    let judged = |change: Change| {
        let mut stale = all_refused();
        change(&mut stale);
        let mut findings = Findings::default();
        seen(&stale, &mut findings);
        (named(&findings), refused(&stale))
    };
    let (found, all) = judged(|_| {});
    assert_eq!(found, []);
    let one = Refused {
        commits: 1,
        calls: 1,
        questions: 1,
        leases: 1,
    };
    assert_eq!(all, one);
    assert!(all.each_at_least(1) && !all.each_at_least(2));
    let wrong: [(&str, Change); 9] = [
        ("a commit is taken", |stale| {
            stale.late[0].answer = "HTTP/1.1 200 OK\r\n\r\n{}".to_owned();
        }),
        ("a commit is refused for something else", |stale| {
            stale.late[0].answer = REFUSAL.replace("stale_epoch", "head_moved");
        }),
        ("no commit came late", |stale| drop(stale.late.remove(0))),
        ("a call is answered", |stale| {
            stale.late[1].answer = "HTTP/1.1 200 OK\r\n\r\n{}".to_owned();
        }),
        ("no call came late", |stale| drop(stale.late.remove(1))),
        ("a key is given out", |stale| {
            stale.asked[0].answer = "200 OK {\"key\":\"stale_epoch\"}".to_owned();
        }),
        ("nobody asked on", |stale| stale.asked.clear()),
        ("a gateway holds on", |stale| {
            stale.lease.as_mut().expect("there is one").is_let_go = false;
        }),
        ("no lease was lost", |stale| stale.lease = None),
    ];
    for (what, change) in wrong {
        let (found, refused) = judged(change);
        assert_eq!(found, [Rule::Fence], "{what}");
        assert!(!refused.each_at_least(1), "{what}: {refused}");
    }
    let (found, _) = judged(|stale| stale.missing.push("not within 30s: it is held".to_owned()));
    assert_eq!(found, [Rule::Fence]);
}
