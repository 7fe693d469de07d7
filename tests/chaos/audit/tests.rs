//! The auditor can see: books and logs in which one thing is wrong, and the rule that it names.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use carrel_tests::{Event, Place};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::heads::Left;
use super::money::{Books, Charge, compare, within};
use super::{
    Evidence, Findings, Logs, Rule, contract, fence, heads, running, same_fold, streams, succeeds,
    turns,
};
use crate::clients::{Sent, Talk};
use crate::faults::Excused;
use crate::schedule::Excuse;
use crate::school::BUDGET;
use crate::stale::Stale;

/// What ada's turns left in her workspace.
const LEFT: Left = Left { count: 3, kept: 77 };

pub(super) fn named(findings: &Findings) -> Vec<Rule> {
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
        json!({"type": "queued", "turn_id": "t3", "time": "2026-01-01T00:00:05Z"}),
        json!({"type": "done", "turn_id": "t1", "reply": {"text": "1"}}),
        json!({"type": "failed", "turn_id": "t2", "code": "agent_failed"}),
        json!({"type": "done", "turn_id": "t3", "reply": {"text": "2 1 2"}}),
    ];
    let texts = [("t1", "count"), ("t2", "exit"), ("t3", "slow 2")];
    let sent = texts.map(|(turn, text)| Sent {
        text: text.to_owned(),
        turn: turn.to_owned(),
        at: Instant::now(),
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
    judged_with(&[], change)
}

fn judged_with(excused: &[Excused], change: impl FnOnce(&mut Vec<Value>, &mut Talk)) -> Vec<Rule> {
    judged_beside(&Stale::default(), excused, change)
}

fn judged_beside(
    stale: &Stale,
    excused: &[Excused],
    change: impl FnOnce(&mut Vec<Value>, &mut Talk),
) -> Vec<Rule> {
    let healed = Instant::now();
    let (mut log, mut talk) = well();
    change(&mut log, &mut talk);
    let (logs, talks) = (Logs::from([("ada", log)]), [talk]);
    let evidence = Evidence {
        talks: &talks,
        stale,
        excused,
        healed,
    };
    let mut findings = Findings::default();
    turns::judge(&logs, &evidence, &mut findings);
    streams::judge(&logs, &evidence, &mut findings);
    contract::judge(&evidence, &mut findings);
    named(&findings)
}

#[test]
fn what_is_well_is_not_called_broken() {
    assert_eq!(judged(|_, _| {}), []);
}

#[test]
fn what_is_wrong_with_turns_and_streams_is_named() {
    type Change = fn(&mut Vec<Value>, &mut Talk);
    let cases: [(&str, Change, &[Rule]); 15] = [
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
            "an outcome that was heard twice",
            |_, talk| talk.heard.push(talk.heard[4].clone()),
            &[Rule::Stream],
        ),
        (
            "outcomes heard out of order",
            |_, talk| talk.heard.swap(1, 2),
            &[Rule::Stream],
        ),
        (
            "text that was heard twice",
            |_, talk| talk.heard.insert(3, talk.heard[3].clone()),
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
    let surprised = |what: &str| judged(|_, talk| talk.surprises.push(what.to_owned()));
    assert_eq!(surprised("'count' was answered with 500"), [Rule::Contract]);
    let falls = "its stream: delta has id 3.1 after 3.2";
    assert_eq!(surprised(falls), [Rule::Stream]);
}

#[test]
fn when_all_is_healed_each_is_accepted_and_nobody_is_turned_away_for_long() {
    let at = |after: u64| Instant::now() + Duration::from_secs(after);
    let mut lease = fence::tests::all_refused().lease.expect("there is one");
    "t1".clone_into(&mut lease.turn.id);
    let mut stale = Stale {
        lease: Some(lease),
        ..Stale::default()
    };
    let turned_away = |stale: &Stale, after| {
        let told = (at(after), "503".to_owned());
        judged_beside(stale, &[], |_, talk| talk.turned_away.push(told))
    };
    assert_eq!(turned_away(&stale, 3), []);
    assert_eq!(turned_away(&stale, 30), [Rule::Contract]);
    stale.lease.as_mut().expect("there is one").paused = at(20)..at(25);
    assert_eq!(turned_away(&stale, 15), [Rule::Contract]);
    assert_eq!(turned_away(&stale, 30), []);
    assert_eq!(turned_away(&stale, 40), [Rule::Contract]);
    let silent = judged(|_, talk| {
        for sent in &mut talk.sent {
            sent.at -= Duration::from_secs(5);
        }
    });
    assert_eq!(silent, [Rule::Contract]);
}

#[test]
fn a_lost_snapshot_is_excused_by_a_fault_of_the_disk_that_lasted_and_by_nothing_else() {
    let time = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let (from, to) = (time("2026-01-01T00:00:10Z"), time("2026-01-01T00:00:14Z"));
    let snapshots = Excused {
        from,
        to,
        what: Excuse::Snapshots,
    };
    let pods = Excused {
        what: Excuse::Pods,
        ..snapshots
    };
    let over = Excused {
        from: time("2026-01-01T00:00:01Z"),
        to: time("2026-01-01T00:00:04Z"),
        what: Excuse::Snapshots,
    };
    let ended = |excused: &[Excused], code: &str, time: &str| {
        judged_with(excused, |log, talk| {
            // The last one fails instead.
            log[5] = json!({"type": "failed", "turn_id": "t3", "code": code, "time": time});
            talk.heard.truncate(3);
            let told = json!({"turn_id": "t3"});
            talk.heard.push(Event {
                place: Place(9, 0),
                name: "error".to_owned(),
                data: told,
            });
        })
    };
    let (during, before) = ("2026-01-01T00:00:12Z", "2026-01-01T00:00:09Z");
    let (soon, late) = ("2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z");
    let well: [(&[Excused], &str, &str); 4] = [
        (&[snapshots], "snapshot_failed", during),
        (&[snapshots], "snapshot_failed", soon),
        (&[pods], "snapshot_failed", during),
        (&[pods], "agent_failed", during),
    ];
    for (excused, code, time) in well {
        assert_eq!(ended(excused, code, time), [], "{code} at {time}");
    }
    let wrong: [(&[Excused], &str, &str); 8] = [
        (&[], "snapshot_failed", during),
        (&[snapshots], "snapshot_failed", before),
        (&[snapshots], "snapshot_failed", late),
        (&[snapshots], "agent_failed", during),
        (&[pods], "agent_failed", late),
        (&[pods], "timeout", during),
        (&[pods], "budget_exhausted", during),
        // What was accepted when it was over.
        (&[over], "snapshot_failed", during),
    ];
    for (excused, code, time) in wrong {
        assert_eq!(
            ended(excused, code, time),
            [Rule::Outcome],
            "{code} at {time}"
        );
    }
}

/// Of each rule one case in which nothing else is broken.
fn breaking(rule: Rule) -> Findings {
    let mut findings = Findings::default();
    let rows = |cell: &str| vec![vec!["1".to_owned(), cell.to_owned()]];
    match rule {
        Rule::Outcome | Rule::Order | Rule::Counting | Rule::Stream | Rule::Contract => {
            let rules = judged(|log, talk| match rule {
                Rule::Outcome => drop(talk.sent.pop()),
                Rule::Order => talk.sent.swap(0, 1),
                Rule::Counting => {
                    log[5]["reply"]["text"] = json!("3 1 2");
                    for (place, key) in [(3, "text"), (4, "reply")] {
                        let told = &mut talk.heard[place].data[key];
                        *told = if key == "text" {
                            json!("3 1 2")
                        } else {
                            json!({"text": "3 1 2"})
                        };
                    }
                }
                Rule::Stream => drop(talk.heard.remove(3)),
                _ => talk
                    .surprises
                    .push("'count' was answered with 500".to_owned()),
            });
            for rule in rules {
                findings.add(rule, "");
            }
        }
        Rule::Ledger => {
            let charges = vec![Charge {
                cost: 9,
                is_reported: true,
            }];
            let (bill, orphans) = (Vec::new(), Vec::new());
            let books = Books {
                bill,
                orphans,
                charges,
            };
            compare("ada", books, &mut findings);
        }
        Rule::Budget => within(
            "gus",
            &rows(&(BUDGET + 1).to_string()),
            BUDGET,
            &mut findings,
        ),
        Rule::Head => heads::same("ada", &LEFT, Ok(Left { count: 2, ..LEFT }), &mut findings),
        Rule::Fold => same_fold(&rows("7"), &rows("8"), &mut findings),
        Rule::AddsUp => {
            let output = Output {
                status: ExitStatus::from_raw(1 << 8),
                stdout: b"ada: a message has no turn".to_vec(),
                stderr: Vec::new(),
            };
            succeeds(Rule::AddsUp, &output, &mut findings);
        }
        Rule::Fence => fence::above(&rows(""), &mut findings),
        Rule::Running => running(&["vault-1 ended by itself".to_owned()], &[], &mut findings),
    }
    findings
}

#[test]
fn each_rule_is_named_when_it_alone_is_broken() {
    for rule in Rule::ALL {
        assert_eq!(named(&breaking(rule)), [rule]);
    }
}

#[test]
fn nothing_is_said_of_what_holds() {
    let mut findings = Findings::default();
    let rows = vec![vec!["1".to_owned(), BUDGET.to_string()]];
    within("gus", &rows, BUDGET, &mut findings);
    heads::same("ada", &LEFT, Ok(LEFT), &mut findings);
    heads::goes_on("ada", &LEFT, Ok("4 kept 77".to_owned()), &mut findings);
    same_fold(&rows, &rows, &mut findings);
    let output = Output {
        status: ExitStatus::default(),
        stdout: Vec::new(),
        stderr: b"everything that is stored adds up".to_vec(),
    };
    succeeds(Rule::AddsUp, &output, &mut findings);
    fence::above(&[], &mut findings);
    running(&[], &[("fleet", "all is well".to_owned())], &mut findings);
    assert_eq!(named(&findings), []);
}

#[test]
fn each_way_in_which_a_head_a_budget_and_a_process_are_wrong_is_seen() {
    let seen = |judge: &dyn Fn(&mut Findings)| {
        let mut findings = Findings::default();
        judge(&mut findings);
        named(&findings)
    };
    let other = Left { kept: 78, ..LEFT };
    assert_eq!(
        seen(&|found| heads::same("ada", &LEFT, Ok(other), found)),
        [Rule::Head]
    );
    assert_eq!(
        seen(&|found| heads::same("ada", &LEFT, Err(anyhow!("damaged")), found)),
        [Rule::Head]
    );
    for next in ["3 kept 77", "5 kept 77", "4 kept 0", "4"] {
        let judge = |found: &mut Findings| {
            heads::goes_on("ada", &LEFT, Ok(next.to_owned()), found);
        };
        assert_eq!(seen(&judge), [Rule::Head], "{next}");
    }
    assert_eq!(
        seen(&|found| heads::goes_on("ada", &LEFT, Err(anyhow!("it does not wake")), found)),
        [Rule::Head]
    );
    let log = [
        json!({"type": "done", "reply": {"text": "1 kept 5"}}),
        json!({"type": "failed"}),
        json!({"type": "done", "reply": {"text": "2 kept 77"}}),
        json!({"type": "done", "reply": {"text": "3"}}),
    ];
    assert_eq!(Left::by(&log), LEFT);
    let nothing = Left { kept: 0, ..LEFT };
    assert_eq!(
        seen(&|found| heads::something("ada", &nothing, found)),
        [Rule::Head]
    );
    assert_eq!(seen(&|found| heads::something("ada", &LEFT, found)), []);
    assert_eq!(
        seen(&|found| within("gus", &[], BUDGET + 1, found)),
        [Rule::Budget],
        "billed"
    );
    let log = "thread 'tokio' panicked at crates/vault/src/lib.rs:1:1".to_owned();
    assert_eq!(
        seen(&|found| running(&[], &[("vault-1", log.clone())], found)),
        [Rule::Running]
    );
    let output = Output {
        status: ExitStatus::from_raw(1 << 8),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    assert_eq!(
        seen(&|found| succeeds(Rule::Fold, &output, found)),
        [Rule::Fold]
    );
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
