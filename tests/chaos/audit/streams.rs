//! What clients heard on streams that broke and were resumed elsewhere.

use serde_json::Value;

use carrel_tests::stream::text_of;

use super::{Evidence, Findings, Logs, Rule};

pub(super) fn judge(logs: &Logs, evidence: &Evidence<'_>, findings: &mut Findings) {
    for talk in evidence.talks {
        for surprise in &talk.surprises {
            let rule = if surprise.starts_with("its stream") {
                Rule::Stream
            } else {
                Rule::Contract
            };
            findings.add(rule, format!("{}: {surprise}", talk.learner));
        }
        for sent in &talk.sent {
            let outcomes: Vec<_> = talk
                .heard
                .iter()
                .filter(|event| event.is_outcome() && event.text("turn_id") == sent.turn)
                .collect();
            let [outcome] = outcomes[..] else {
                findings.add(
                    Rule::Stream,
                    format!(
                        "{}: turn {} ('{}') was told {} outcomes",
                        talk.learner,
                        sent.turn,
                        sent.text,
                        outcomes.len()
                    ),
                );
                continue;
            };
            if outcome.name != "done" {
                continue;
            }
            let reply = outcome.data["reply"]["text"].as_str().unwrap_or_default();
            let told = text_of(&talk.heard, &sent.turn);
            findings.demand(Rule::Stream, told == reply, || {
                format!(
                    "{}: turn {} ('{}') was told as '{told}' and is '{reply}'",
                    talk.learner, sent.turn, sent.text
                )
            });
        }
        let of = |events: &[Value]| -> Vec<String> {
            let ended = |event: &&Value| event["type"] == "done" || event["type"] == "failed";
            let id = |event: &Value| event["turn_id"].as_str().unwrap_or_default().to_owned();
            events.iter().filter(ended).map(id).collect()
        };
        let heard = talk.heard.iter().filter(|event| event.is_outcome());
        let heard: Vec<String> = heard
            .map(|event| event.text("turn_id").to_owned())
            .collect();
        let mut logged = of(&logs[talk.learner]);
        logged.retain(|id| heard.contains(id));
        findings.demand(Rule::Stream, heard == logged, || {
            format!(
                "{}: outcomes came as {heard:?} and are {logged:?}",
                talk.learner
            )
        });
    }
}
