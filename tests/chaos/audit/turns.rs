//! Messages and their turns: each has one outcome, in order, and the numbers that the agents count are unbroken.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Evidence, Findings, Logs, Rule};

pub(super) fn judge(logs: &Logs, evidence: &Evidence<'_>, findings: &mut Findings) {
    for talk in evidence.talks {
        let learner = talk.learner;
        let log = &logs[learner];
        let mut said: BTreeMap<&str, &str> = BTreeMap::new();
        said.extend(
            talk.sent
                .iter()
                .map(|sent| (sent.turn.as_str(), sent.text.as_str())),
        );
        let late = evidence.late.iter().filter(|late| late.learner == learner);
        said.extend(late.map(|late| (late.turn.as_str(), "count")));

        let turn = |event: &Value| event["turn_id"].as_str().unwrap_or_default().to_owned();
        let of = |kinds: &[&str]| -> Vec<&Value> {
            let of = |event: &&Value| kinds.iter().any(|kind| event["type"] == *kind);
            log.iter().filter(of).collect()
        };
        let queued: Vec<String> = of(&["queued"]).into_iter().map(turn).collect();
        let outcomes = of(&["done", "failed"]);
        for id in said.keys() {
            let accepted = queued.iter().filter(|queued| queued == id).count();
            findings.demand(Rule::Outcome, accepted == 1, || {
                format!("{learner}: turn {id} was accepted and is {accepted} times in the log")
            });
        }
        for id in &queued {
            let ended = outcomes.iter().filter(|event| turn(event) == *id).count();
            findings.demand(Rule::Outcome, ended == 1, || {
                format!(
                    "{learner}: turn {id} ({:?}) has {ended} outcomes",
                    said.get(id.as_str())
                )
            });
            findings.demand(Rule::Outcome, said.contains_key(id.as_str()), || {
                format!("{learner}: nobody sent what became turn {id}")
            });
        }
        let sent: Vec<&str> = talk.sent.iter().map(|sent| sent.turn.as_str()).collect();
        let kept: Vec<&str> = queued
            .iter()
            .map(String::as_str)
            .filter(|id| sent.contains(id))
            .collect();
        findings.demand(Rule::Order, kept == sent, || {
            format!("{learner} sent {sent:?}, and accepted were {kept:?}")
        });
        let ended: Vec<String> = outcomes.iter().map(|event| turn(event)).collect();
        findings.demand(Rule::Order, ended == queued, || {
            format!("{learner}: accepted {queued:?}, ended {ended:?}")
        });
        let mut count = 0;
        for event in outcomes {
            let (id, text) = (turn(event), said.get(turn(event).as_str()).copied());
            outcome(
                learner,
                &id,
                text.unwrap_or_default(),
                event,
                &mut count,
                findings,
            );
        }
        for event in of(&["fell_back"]) {
            findings.add(
                Rule::Head,
                format!("{learner}: nothing was destroyed, and it fell back: {event}"),
            );
        }
    }
}

/// Whether a turn ended as its message lets it end.
fn outcome(
    learner: &str,
    id: &str,
    text: &str,
    event: &Value,
    count: &mut u64,
    findings: &mut Findings,
) {
    let is_done = event["type"] == "done";
    let code = event["code"].as_str().unwrap_or_default();
    let allowed = match text {
        "exit" => !is_done && code == "agent_failed",
        "die" => !is_done && code == "agent_died",
        // A bucket that was full for longer than a commit waits.
        _ => is_done || code == "snapshot_failed",
    };
    findings.demand(Rule::Outcome, allowed, || {
        format!("{learner}: '{text}' (turn {id}) ended in {event}")
    });
    if is_done {
        *count += 1;
        let reply = event["reply"]["text"].as_str().unwrap_or_default();
        let number = reply.split(' ').next().and_then(|word| word.parse().ok());
        findings.demand(Rule::Counting, number == Some(*count), || {
            format!("{learner}: turn {id} should be number {count} and says '{reply}'")
        });
        if let Some(pieces) = text
            .strip_prefix("slow ")
            .and_then(|n| n.parse::<u64>().ok())
        {
            let rest = reply.split_once(' ').map_or("", |(_, rest)| rest);
            let said = rest.split(' ').map(str::parse::<u64>);
            findings.demand(Rule::Counting, said.eq((1..=pieces).map(Ok)), || {
                format!("{learner}: turn {id} of '{text}' says '{reply}'")
            });
        }
    }
}

/// How many turns of a learner committed.
pub(super) fn committed(log: &[Value]) -> u64 {
    log.iter().filter(|event| event["type"] == "done").count() as u64
}
