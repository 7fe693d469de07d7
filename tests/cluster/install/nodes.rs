//! A node is drained while one of its learners is answered.

use anyhow::{Context as _, ensure};
use carrel_tests::cluster::{Installation, Steps};
use serde_json::json;

use super::turns::pod_of;

/// What of a node's pods is drained: components have others beside them, and the names of services do not.
const LEARNERS: &str = "--pod-selector=app.kubernetes.io/component=learner";

pub(super) async fn a_node_is_drained_in_mid_turn(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let other = school.another_node(steps.test).await?;
    steps.done("another node");
    let before: u32 = school.api.reply("bob", "before").await?.parse()?;
    let first = pod_of(school, "bob").await?;
    let mut turn = school
        .api
        .post_and_follow("bob", "slow 4", "drained")
        .await?;
    loop {
        let event = turn.next().await?.context("the turn does not end yet")?;
        if event.name == "delta" {
            break;
        }
    }
    let node = school.node.name.as_str();
    let words = ["drain", node, LEARNERS, "--force", "--delete-emptydir-data"];
    // The turn goes on meanwhile.
    let said = tokio::task::block_in_place(|| school.plane.kubectl(&words))?;
    ensure!(said.contains(&first), "it was not evicted: {said}");
    let mut outcomes = Vec::new();
    while let Some(event) = turn.next().await? {
        assert_ne!(event.name, "restart", "the turn had the time that it needs");
        outcomes.extend(event.is_outcome().then_some(event));
    }
    let [outcome] = outcomes.as_slice() else {
        anyhow::bail!("one outcome: {outcomes:?}");
    };
    let expected = format!("{}\nslow 4: done", before + 1);
    assert_eq!(outcome.data["reply"]["text"], json!(expected));
    assert_eq!(
        school.api.reply("bob", "after").await?,
        (before + 2).to_string()
    );
    let status = school.object("learner/bob")?["status"].clone();
    assert_eq!(status["nodeName"], json!(other.name));
    steps.done("a node drained in mid-turn: answered once, and remembered on the other node");
    school.api.sleep("bob").await?;
    school.no_pods().await?;
    school.plane.kubectl(&["uncordon", node])?;
    let gone = other.name.clone();
    drop(other);
    school.plane.kubectl(&["delete", "node", &gone])?;
    Ok(())
}
