//! The auditor can see: books and logs in which one thing is wrong, and the rule that it names.

use carrel_tests::{Event, Place};
use serde_json::{Value, json};

use super::money::{Books, Charge, compare};
use super::{Evidence, Findings, Logs, Rule, refused, streams, turns};
use crate::clients::{Sent, Talk};
use crate::faults::LateCommit;

fn named(findings: &Findings) -> Vec<Rule> {
    let mut rules: Vec<_> = findings.0.iter().map(|broken| broken.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// What ada said, what was logged of it, and what she heard: all is well.
fn well() -> (Vec<Value>, Talk) {
    let log = vec![
        json!({"type": "queued", "turn_id": "t1"}),
        json!({"type": "queued", "turn_id": "t2"}),
        json!({"type": "queued", "turn_id": "t3"}),
        json!({"type": "done", "turn_id": "t1", "reply": {"text": "1"}}),
        json!({"type": "failed", "turn_id": "t2", "code": "agent_failed"}),
        json!({"type": "done", "turn_id": "t3", "reply": {"text": "2 1 2"}}),
    ];
    let texts = [("t1", "count"), ("t2", "exit"), ("t3", "slow 2")];
    let sent = texts.map(|(turn, text)| Sent {
        text: text.to_owned(),
        turn: turn.to_owned(),
    });
    let told = [
        ("delta", json!({"turn_id": "t1", "text": "1"})),
        ("done", json!({"turn_id": "t1", "reply": {"text": "1"}})),
        ("error", json!({"turn_id": "t2"})),
        ("delta", json!({"turn_id": "t3", "text": "2 1 2"})),
        ("done", json!({"turn_id": "t3", "reply": {"text": "2 1 2"}})),
    ];
    let heard = (1..).zip(told).map(|(n, (name, data))| Event {
        place: Place(n, 0),
        name: name.to_owned(),
        data,
    });
    let talk = Talk {
        learner: "ada",
        sent: sent.into(),
        heard: heard.collect(),
        ..Talk::default()
    };
    (log, talk)
}

fn judged(change: impl FnOnce(&mut Vec<Value>, &mut Talk)) -> Vec<Rule> {
    let (mut log, mut talk) = well();
    change(&mut log, &mut talk);
    let (logs, talks) = (Logs::from([("ada", log)]), [talk]);
    let evidence = Evidence {
        talks: &talks,
        late: &[],
    };
    let mut findings = Findings::default();
    turns::judge(&logs, &evidence, &mut findings);
    streams::judge(&logs, &evidence, &mut findings);
    named(&findings)
}

#[test]
fn what_is_well_is_not_called_broken() {
    assert_eq!(judged(|_, _| {}), []);
}

#[test]
fn what_is_wrong_with_turns_and_streams_is_named() {
    type Change = fn(&mut Vec<Value>, &mut Talk);
    let cases: [(&str, Change, &[Rule]); 12] = [
        (
            "lost",
            |log, _| drop(log.remove(5)),
            &[Rule::Outcome, Rule::Order],
        ),
        (
            "twice",
            |log, _| log.push(log[5].clone()),
            &[Rule::Outcome, Rule::Order, Rule::Counting],
        ),
        (
            "never accepted",
            |_, talk| drop(talk.sent.pop()),
            &[Rule::Outcome],
        ),
        (
            "failed",
            |log, _| log[3] = json!({"type": "failed", "turn_id": "t1", "code": "timeout"}),
            &[Rule::Outcome, Rule::Counting],
        ),
        (
            "not failed",
            |log, _| log[4] = json!({"type": "done", "turn_id": "t2", "reply": {"text": "2"}}),
            &[Rule::Outcome, Rule::Counting],
        ),
        ("out of order", |log, _| log.swap(3, 4), &[Rule::Order]),
        (
            "accepted out of order",
            |_, talk| talk.sent.swap(0, 1),
            &[Rule::Order],
        ),
        (
            "a gap",
            |log, _| log[5]["reply"]["text"] = json!("3 1 2"),
            &[Rule::Counting],
        ),
        (
            "half a reply",
            |log, _| log[5]["reply"]["text"] = json!("2 1"),
            &[Rule::Counting],
        ),
        (
            "an outcome that nobody heard",
            |_, talk| drop(talk.heard.remove(1)),
            &[Rule::Stream],
        ),
        (
            "text that nobody heard",
            |_, talk| drop(talk.heard.remove(3)),
            &[Rule::Stream],
        ),
        (
            "a fall-back",
            |log, _| log.push(json!({"type": "fell_back"})),
            &[Rule::Head],
        ),
    ];
    for (what, change, rules) in cases {
        let found = judged(change);
        for rule in rules {
            assert!(found.contains(rule), "{what}: {found:?} and not {rule:?}");
        }
    }
    let surprised = judged(|_, talk| {
        talk.surprises
            .push("'count' was answered with 500".to_owned());
    });
    assert_eq!(surprised, [Rule::Contract]);
}

fn books(bill: &[u64], orphans: &[u64], charges: &[(u64, bool)]) -> usize {
    let books = Books {
        bill: bill.to_vec(),
        orphans: orphans.to_vec(),
        charges: charges
            .iter()
            .map(|(cost, is_reported)| Charge {
                cost: *cost,
                is_reported: *is_reported,
            })
            .collect(),
    };
    let mut findings = Findings::default();
    compare("ada", books, &mut findings);
    assert!(findings.0.iter().all(|broken| broken.rule == Rule::Ledger));
    findings.0.len()
}

#[test]
fn books_that_balance_are_told_from_books_that_do_not() {
    assert_eq!(books(&[7, 8], &[], &[(8, true), (7, true), (0, false)]), 0);
    assert_eq!(
        books(&[7, 8], &[20], &[(7, true), (20, false)]),
        0,
        "by an orphan"
    );
    assert_eq!(
        books(&[7], &[20], &[(7, true), (20, false)]),
        0,
        "of no call"
    );
    assert_eq!(books(&[7, 8], &[], &[(7, true)]), 1, "a call for nothing");
    assert_eq!(
        books(&[7], &[], &[(7, true), (7, true)]),
        1,
        "charged twice"
    );
    assert_eq!(books(&[7], &[], &[(7, true), (9, true)]), 1, "for no call");
    assert_eq!(books(&[7], &[20], &[(7, true)]), 1, "an orphan for nothing");
    assert_eq!(
        books(&[7, 30], &[20], &[(7, true), (20, false)]),
        1,
        "held too little"
    );
    assert_eq!(
        books(&[], &[20], &[(20, false), (20, false)]),
        1,
        "an orphan twice"
    );
}

#[test]
fn a_stale_commit_must_be_refused_and_seen() {
    let judged = |answers: &[&str]| {
        let late: Vec<_> = answers
            .iter()
            .map(|answer| LateCommit {
                learner: "ada",
                turn: String::new(),
                epoch: 3,
                fence: 4,
                answer: (*answer).to_owned(),
            })
            .collect();
        let mut findings = Findings::default();
        refused(&late, &mut findings);
        named(&findings)
    };
    let refusal = "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"stale_epoch\"}";
    assert_eq!(judged(&[refusal]), []);
    for wrong in [
        &["HTTP/1.1 200 OK\r\n\r\n{}"][..],
        &[
            refusal,
            "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"head_moved\"}",
        ],
        &[],
    ] {
        assert_eq!(judged(wrong), [Rule::Fence]);
    }
}
