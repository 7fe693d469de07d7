//! Messages and their turns: each has one outcome, in order, and the numbers that the agents count are unbroken.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Evidence, Findings, Logs, Rule};
use crate::faults::Excused;
use crate::schedule::Excuse;

/// A turn that fails because of something has its outcome so long after, while the database may be away.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_secs(15);

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
        let stale = evidence
            .stale
            .turns()
            .filter(|turn| turn.learner == learner);
        said.extend(stale.map(|turn| (turn.id.as_str(), turn.text.as_str())));

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
            let accepted = of(&["queued"]).into_iter().find(|event| turn(event) == id);
            let excuses: Vec<Excuse> = excuses(accepted, event, evidence.excused).collect();
            let text = text.unwrap_or_default();
            let is_allowed = is_allowed(text, event, &excuses);
            findings.demand(Rule::Outcome, is_allowed, || {
                format!("{learner}: '{text}' (turn {id}) ended in {event}")
            });
            if event["type"] == "done" {
                count += 1;
                counted(learner, &id, text, event, count, findings);
            }
        }
        for event in of(&["fell_back"]) {
            findings.add(
                Rule::Head,
                format!("{learner}: nothing was destroyed, and it fell back: {event}"),
            );
        }
    }
}

/// What lasted when a turn ended, or not long before, and had not ended when it was accepted.
fn excuses<'a>(
    accepted: Option<&Value>,
    ended: &Value,
    excused: &'a [Excused],
) -> impl Iterator<Item = Excuse> + 'a {
    let time = |event: &Value| event["time"].as_str()?.parse::<Timestamp>().ok();
    let times = accepted.and_then(time).zip(time(ended));
    let lasted = move |excused: &&Excused| {
        times.is_some_and(|(accepted, ended)| {
            let (from, to) = (excused.from, excused.to);
            accepted <= to && from <= ended && ended <= to + TOLD_WITHIN
        })
    };
    excused.iter().filter(lasted).map(|excused| excused.what)
}

/// Whether a turn ended as its message lets it end.
fn is_allowed(text: &str, event: &Value, excuses: &[Excuse]) -> bool {
    let is_done = event["type"] == "done";
    let code = event["code"].as_str().unwrap_or_default();
    let as_said = match text {
        "exit" => !is_done && code == "agent_failed",
        "die" => !is_done && code == "agent_died",
        _ => is_done,
    };
    let excused = |excuse: &Excuse| excuse.codes().contains(&code);
    as_said || (!is_done && excuses.iter().any(excused))
}

/// The turn that is number `count` says so, and whatever else it was to say.
fn counted(
    learner: &str,
    id: &str,
    text: &str,
    event: &Value,
    count: u64,
    findings: &mut Findings,
) {
    let reply = event["reply"]["text"].as_str().unwrap_or_default();
    let number = reply.split(' ').next().and_then(|word| word.parse().ok());
    findings.demand(Rule::Counting, number == Some(count), || {
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

/// How many turns of a learner committed.
pub(super) fn committed(log: &[Value]) -> u64 {
    log.iter().filter(|event| event["type"] == "done").count() as u64
}
