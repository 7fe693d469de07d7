//! What the first page tells an operator, as it stands there: from an empty cluster to a learner's first answer, and what they ask then.

use std::time::Duration;

use anyhow::ensure;
use carrel_tests::cluster::{Installation, Operator, Steps};
use serde_json::json;

use crate::told_by_the_first_page;

/// What is promised.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_mins(5);

pub(super) async fn its_commands_lead_to_an_answer(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let operator = Operator::of(&school.plane)?;
    let (told, here) = (told_by_the_first_page()?, ["-n", Installation::NAMESPACE]);
    let apply = [&here[..], &["apply", "-f", "-"]].concat();
    let said = operator.kubectl(&apply, &told)?.well()?;
    assert_eq!(said.matches(" created").count(), 2, "{said}");
    let carrel = |words: &[&str]| operator.carrel(&[&here, words].concat(), "")?.well();
    let answer = carrel(&["learner", "chat", "ada", "What is 7 × 8?"])?;
    let took = school.empty_at.elapsed();
    assert!(answer.contains("56"), "{answer}");
    ensure!(took < FIRST_ANSWER_WITHIN, "{took:?}");
    let seconds = took.as_secs();
    steps.done(&format!(
        "README: from an empty cluster to a learner's first answer in {seconds} s, 'helm test' included"
    ));

    school.blank("default", 2).await?;
    let healthy = carrel(&["doctor"])?;
    for line in ["ok    gateway: 2 of 2 pods", "ok    pools: are full"] {
        assert!(healthy.contains(line), "{line}: {healthy}");
    }
    let spent = carrel(&["usage"])?;
    assert!(
        spent.lines().any(|line| line.starts_with("ada ")),
        "{spent}"
    );
    let log = carrel(&["learner", "logs", "ada"])?;
    assert!(log.contains("queued") && log.contains("56"), "{log}");
    let plugin = [&["carrel", "learner", "ls"], &here[..]].concat();
    let listed = operator.kubectl(&plugin, "")?.well()?;
    let object = school.kubectl(&["get", "learners"])?;
    for (list, expected) in [
        (listed, &["ada", "Ready", "default"][..]),
        (object, &["ada", "True", "Ready", "default"]),
    ] {
        let rows = list.lines().map(|row| row.split_whitespace().collect());
        let is_there = rows
            .into_iter()
            .any(|row: Vec<_>| row.starts_with(expected));
        assert!(is_there, "{expected:?}: {list}");
    }
    let images = ["rollout", "status", "daemonset/carrel-pre-pull"];
    school.kubectl(&[&images[..], &["--timeout=60s"]].concat())?;
    steps.done("a doctor that is content, usage, logs, kubectl's plugin");

    // Others need the room.
    let none = json!({"spec": {"warmPool": {"size": 0}}}).to_string();
    let class = ["patch", "learnerclass/default", "--type=merge", "--patch"];
    school.kubectl(&[&class[..], &[&none]].concat())?;
    school.blank("default", 0).await?;
    school.api.sleep("ada").await?;
    school.no_pods().await
}
