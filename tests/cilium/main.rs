//! The chart's network policies where a network enforces them: `cargo xtask test cilium` builds Cilium, and runs this on a real node with it.
//! Whether anything is kept apart is asked where people would ask it: inside of a learner's pod, and of pods beside it. At the end the
//! same questions are asked without the policies: what was refused before is reached then, or it was no refusal.

#![expect(clippy::print_stdout, reason = "its output says how each part ended")]

mod beside;
mod learner;

use carrel_tests::agent;
use carrel_tests::cluster::{Installation, NodeOptions, Steps};
use serde_json::json;

use self::learner::Doors;

const TEST: &str = "policies_keep_learners_pods_apart";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut steps = Steps::new(TEST);
    let cilium = NodeOptions {
        cilium: true,
        ..NodeOptions::default()
    };
    let Some(school) = Installation::start(&mut steps, cilium).await? else {
        println!("test {TEST} ... ok");
        return Ok(());
    };
    let ended = policies(&school, &mut steps).await;
    if ended.is_err() {
        school.tell();
    }
    let how = if ended.is_ok() { "ok" } else { "FAILED" };
    println!("test {TEST} ... {how}");
    ended
}

async fn policies(school: &Installation, steps: &mut Steps) -> anyhow::Result<()> {
    beside::open_what_policies_keep_shut(school)?;
    steps.done("a metadata service, and another namespace");
    school.apply(&agent::inside("patient", &json!({})))?;
    for name in ["ada", "bob"] {
        school.learner(name, "patient").await?;
        // Their pods have tried at their start what must not be reached.
        assert_eq!(school.api.reply(name, "hello").await?, "1");
    }
    steps.done("two learners answered, each by their own pod");
    let doors = Doors::find(school)?;
    doors.are_shut(school).await?;
    steps.done("from a learner's pod: router and vault, nothing else");
    beside::a_learners_pod_is_reached_by_gateway_and_controller_alone(school, &doors).await?;
    beside::components_are_kept_in(school, &doors)?;
    steps.done("into a learner's pod: gateway and controller, nobody else; out of a component: where it has to go");
    school.api.sleep("ada").await?;
    assert!(school.api.reply("ada", "again").await?.starts_with('3'));
    steps.done("asleep, awake and remembering");
    let namespace = format!("--namespace={}", Installation::LEARNERS);
    school
        .plane
        .kubectl(&["delete", "networkpolicies", "--all", &namespace])?;
    // Whoever slept has another pod since.
    school.api.reply("bob", "again").await?;
    let doors = Doors::find(school)?;
    doors.are_open(school).await?;
    steps.done("without the policies all of it is reached");
    beside::a_pod_that_policies_do_not_keep_in_takes_nobody(school, &doors).await?;
    steps.done("a new pod reaches what it must not, and takes nobody");
    Ok(())
}
