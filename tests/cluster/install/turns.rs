//! Turns that something breaks: their pod is taken away, or their agent takes too much memory.

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::agent;
use carrel_tests::cluster::{Installation, Steps};
use carrel_tests::eventually;
use serde_json::{Value, json};

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(2);

/// The pod that a learner has, once it is labelled as theirs.
pub(super) async fn pod_of(school: &Installation, learner: &str) -> anyhow::Result<String> {
    eventually("the learner has a pod", LONG, || async {
        let pods = school.pods()?;
        let mut theirs = pods.iter().filter(|pod| {
            pod["metadata"]["labels"]["carrel.dev/learner"] == learner
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        Ok(theirs
            .next()
            .and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)))
    })
    .await
}

pub(super) async fn a_turn_whose_pod_is_killed_runs_again_elsewhere(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let host = school.plane.host().context("it is reachable")?;
    let out = json!({"egress": {"allow": [format!("{host}/32")]}});
    school.apply(&agent::inside("patient", &out))?;
    school.learner("bob", "patient").await?;
    assert_eq!(school.api.reply("bob", "hello").await?, "1");
    let first = pod_of(school, "bob").await?;
    let mut turn = school.api.post_and_follow("bob", "slow 6", "slow").await?;
    loop {
        let event = turn.next().await?.context("the turn does not end yet")?;
        if event.name == "delta" {
            break;
        }
    }
    school.plane.kubectl(&[
        "delete",
        "pod",
        &first,
        "--namespace",
        Installation::LEARNERS,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])?;
    let mut last = None;
    while let Some(event) = turn.next().await? {
        last = Some(event);
    }
    let last = last.context("a turn has an outcome")?;
    assert_eq!(last.name, "done", "{last:?}");
    // What the broken attempt counted was never committed.
    assert_eq!(last.data["reply"]["text"], "2\nslow 6: done");
    assert_ne!(pod_of(school, "bob").await?, first);
    steps.done("a pod killed in mid-turn: the turn ran again elsewhere, once");
    Ok(())
}

pub(super) async fn an_agent_that_takes_too_much_memory_fails_its_message_alone(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let failed = school.api.failure("bob", "eat 256").await?;
    assert_eq!(
        (failed.text("code"), failed.data["retryable"].as_bool()),
        ("agent_died", Some(false))
    );
    let log = school.api.logged("bob", "failed").await?;
    let why = log[0]["operator_reason"].as_str().unwrap_or_default();
    // The control group of its container has counted them.
    let counted = "of the agent's processes ran out of memory";
    assert!(why.contains(counted), "{log:?}");
    assert_eq!(school.api.reply("bob", "still there?").await?, "3");
    steps.done("an agent beyond its memory: its message failed, and the next one is answered");
    Ok(())
}

pub(super) async fn an_agent_that_fills_its_disk_is_evicted_and_its_learner_comes_back(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let first = pod_of(school, "bob").await?;
    let before = school.object("learner/bob")?["status"]["epoch"].as_u64();
    // What is in no workspace is not kept, so it does not come again with the state.
    let reply = school.api.reply("bob", "keep 80 /tmp/kept").await?;
    let (number, kept) = reply.split_once('\n').context("two lines")?;
    assert_eq!(kept, "keep 80 /tmp/kept: kept");
    // Where the kubelet looks before the turn is done, it runs again elsewhere, and fills that pod, too.
    let number: u32 = number.parse()?;
    let which = format!("--field-selector=reason=Evicted,involvedObject.name={first}");
    let events = ["get", "events", &which, "--output=json", "--namespace"];
    let events = [&events[..], &[Installation::LEARNERS]].concat();
    eventually("the kubelet evicts the pod", LONG, || async {
        let events: Value = serde_json::from_str(&school.plane.kubectl(&events)?)?;
        Ok(events["items"].get(0).map(|_| ()))
    })
    .await?;
    let next: u32 = school.api.reply("bob", "still there?").await?.parse()?;
    assert!(number >= 4 && next > number, "{number} {next}");
    assert_ne!(pod_of(school, "bob").await?, first);
    let after = school.object("learner/bob")?["status"]["epoch"].as_u64();
    assert!(after > before, "{after:?} {before:?}");
    steps.done(
        "an agent that fills its disk: its pod is evicted, and the learner comes back as they were",
    );
    Ok(())
}
