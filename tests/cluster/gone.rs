//! What is left of a cluster whose test was killed: nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use carrel_tests::cluster::ControlPlane;
use carrel_tests::{eventually, machine, wait};

use crate::nodes::{self, made};
use crate::{LONG, one_fake_node, start};

/// Set for this program when a test of it is to be killed.
const KILLED: &str = "CARREL_TEST_KILLED";
/// The test that is killed says so when its cluster runs.
const RUNS: &str = "it runs, see ";

/// Whether this is the process that is killed.
fn is_killed() -> bool {
    std::env::var_os(KILLED).is_some()
}

/// Says by which words all that a cluster has made is found, and keeps it until this process is killed.
async fn hold(marks: &[String]) -> anyhow::Result<()> {
    println!("\n{RUNS}{}", marks.join(" "));
    std::future::pending().await
}

/// Runs a test in a process of its own, kills that when it says that its cluster runs, and waits until nothing is left: processes with
/// one of its marks in their words, folders, what was made on this machine.
async fn kill(test: &str) -> anyhow::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(KILLED, "1")
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
        let left: Vec<String> = marks.iter().flat_map(left).collect();
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

fn folder(plane: &ControlPlane) -> String {
    let folder = plane.kubeconfig().parent();
    folder.map_or_else(String::new, |folder| folder.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_control_plane_whose_test_was_killed() -> anyhow::Result<()> {
    let test = "nothing_is_left_of_a_control_plane_whose_test_was_killed";
    // The first one says whether it can run here at all.
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    if is_killed() {
        return hold(&[folder(&plane)]).await;
    }
    drop(plane);
    kill(&format!("gone::{test}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_node_whose_test_was_killed() -> anyhow::Result<()> {
    let test = "nothing_is_left_of_a_node_whose_test_was_killed";
    let Some((plane, node)) = nodes::start(test).await? else {
        return Ok(());
    };
    if is_killed() {
        nodes::serve(&plane, "ada").await?;
        let [groups, network] = nodes::marks(&node);
        return hold(&[
            folder(&plane),
            node.folder().display().to_string(),
            groups,
            network,
        ])
        .await;
    }
    drop((node, plane));
    kill(&format!("gone::{test}")).await
}
