//! What is left of a cluster whose test was killed: nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use carrel_tests::{eventually, machine, wait};

use crate::nodes::{self, made};
use crate::{LONG, one_fake_node, start};

/// The test that is killed says so when its cluster runs.
const RUNS: &str = "it runs in ";

/// Runs a test of this program by itself, kills it when it says that its cluster runs, and waits until nothing is left of all that it
/// names: processes that have its words in theirs, folders, what was made on this machine.
async fn kill(test: &str) -> anyhow::Result<()> {
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
    let said = said?.pop().unwrap_or_default();
    let marks: Vec<String> = said[RUNS.len()..].split(' ').map(str::to_owned).collect();
    for mark in &marks {
        assert!(!left(mark).is_empty(), "{mark}");
    }
    child.kill()?;
    child.wait()?;
    eventually("nothing is left", LONG, || {
        let left: Vec<String> = marks.iter().flat_map(|mark| left(mark)).collect();
        async move { Ok(left.is_empty().then_some(())) }
    })
    .await
}

fn left(mark: &String) -> Vec<String> {
    let mut left = made(std::slice::from_ref(mark));
    left.extend(
        machine::mentioning(mark)
            .into_iter()
            .map(|pid| pid.to_string()),
    );
    left.extend(Path::new(mark).exists().then(|| mark.clone()));
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_control_plane_whose_test_was_killed() -> anyhow::Result<()> {
    let test = "nothing_is_left_of_a_control_plane_whose_test_was_killed";
    // Says whether it can run here at all.
    if start(test, one_fake_node()).await?.is_none() {
        return Ok(());
    }
    kill("gone::a_control_plane_that_is_killed").await
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
    if nodes::start(test).await?.is_none() {
        return Ok(());
    }
    kill("gone::a_node_that_is_killed").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started, and killed, by another test"]
async fn a_node_that_is_killed() -> anyhow::Result<()> {
    let (plane, node) = nodes::start("").await?.context("it starts")?;
    nodes::serve(&plane, "ada").await?;
    let folder = plane.kubeconfig().parent().context("it lies in a folder")?;
    let marks = nodes::marks(&node).join(" ");
    println!(
        "\n{RUNS}{} {} {marks}",
        folder.display(),
        node.folder().display()
    );
    std::future::pending().await
}
