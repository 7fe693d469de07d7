//! What is left of a cluster whose test was killed: nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use carrel_tests::{eventually, machine, wait};

use crate::{LONG, one_fake_node, start};

/// The test that is killed says so when its cluster runs.
const RUNS: &str = "it runs in ";

/// Runs a test of this program by itself, kills it when it says that its cluster runs, and waits until nothing of that is left:
/// neither processes, nor the folder, nor what `left` finds.
async fn kill(test: &str, left: impl Fn() -> Vec<String>) -> anyhow::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("it is piped")?;
    let said = wait::lines(output, |line| line.starts_with(RUNS));
    if said.is_err() {
        child.kill()?;
    }
    let folders = said?.pop().unwrap_or_default();
    let folders: Vec<&str> = folders[RUNS.len()..].split(' ').collect();
    for folder in &folders {
        assert!(!machine::mentioning(folder).is_empty(), "{folder}");
    }
    child.kill()?;
    child.wait()?;
    eventually("nothing is left", LONG, || {
        let mut all = left();
        for folder in &folders {
            all.extend(
                machine::mentioning(folder)
                    .into_iter()
                    .map(|pid| pid.to_string()),
            );
            all.extend(Path::new(folder).exists().then(|| (*folder).to_owned()));
        }
        async move { Ok(all.is_empty().then_some(())) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_control_plane_whose_test_was_killed() -> anyhow::Result<()> {
    let test = "nothing_is_left_of_a_control_plane_whose_test_was_killed";
    // Says whether it can run here at all.
    if start(test, one_fake_node()).await?.is_none() {
        return Ok(());
    }
    kill("gone::a_control_plane_that_is_killed", Vec::new).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started, and killed, by another test"]
async fn a_control_plane_that_is_killed() -> anyhow::Result<()> {
    let plane = start("", one_fake_node()).await?.context("it starts")?;
    let folder = plane.kubeconfig().parent().context("it lies in a folder")?;
    println!("\n{RUNS}{}", folder.display());
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_node_whose_test_was_killed() -> anyhow::Result<()> {
    let test = "nothing_is_left_of_a_node_whose_test_was_killed";
    if crate::nodes::start(test).await?.is_none() {
        return Ok(());
    }
    let before = crate::nodes::made();
    kill("gone::a_node_that_is_killed", || {
        let now = crate::nodes::made();
        now.difference(&before).cloned().collect()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started, and killed, by another test"]
async fn a_node_that_is_killed() -> anyhow::Result<()> {
    let (plane, node) = crate::nodes::start("").await?.context("it starts")?;
    crate::nodes::serve(&plane, "ada").await?;
    let folder = plane.kubeconfig().parent().context("it lies in a folder")?;
    println!("\n{RUNS}{} {}", folder.display(), node.folder().display());
    std::future::pending().await
}
