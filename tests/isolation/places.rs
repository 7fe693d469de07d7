//! Kinds of machines and users: turns run on all of them, and what cannot be had there is said.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use carrel_tests::{Setup, Up, agent, machine, skip};
use rustix::process::geteuid;
use serde_json::json;

use crate::all_say_the_same;

/// An ordinary user that no system has.
const ORDINARY_USER: u32 = 12_345;

fn ada() -> Setup {
    Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        ..Setup::default()
    }
}

async fn counts_across_a_sleep(up: &Up) -> anyhow::Result<()> {
    ensure!(up.api.reply("ada", "count").await? == "1");
    up.api.sleep("ada").await?;
    ensure!(up.api.reply("ada", "count").await? == "2");
    all_say_the_same(up, "ada").await
}

#[tokio::test]
async fn an_ordinary_users_learners_have_turns_in_containers() -> anyhow::Result<()> {
    let test = "an_ordinary_users_learners";
    if !geteuid().is_root() {
        let reason = "only root can become another user; all other tests have run as this one";
        return skip(test, "root", reason);
    }
    let setup = Setup {
        user: Some(ORDINARY_USER),
        ..ada()
    };
    let Some(mut up) = Up::start(test, setup).await? else {
        return Ok(());
    };
    counts_across_a_sleep(&up).await?;
    let pod = machine::pods(up.pid()).pop().context("its pod")?;
    let shim = pod.shim.context("its shim")?;
    for pid in [up.pid(), pod.sidecar, shim] {
        let owner = std::fs::metadata(format!("/proc/{pid}"))?.uid();
        ensure!(owner == ORDINARY_USER, "{pid} is of user {owner}");
    }
    ensure!(up.terminate().await?.success());
    ensure!(machine::left_of(&up.data(), &[pod]).is_empty());
    Ok(())
}

/// A user namespace in which there can be no other.
const NO_NAMESPACES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "/bin/sh",
    "-ec",
    "echo 0 > /proc/sys/user/max_user_namespaces\nexec \"$0\" \"$@\"",
];

#[tokio::test]
async fn where_no_container_can_be_made_auto_falls_back_and_says_why() -> anyhow::Result<()> {
    let test = "where_no_container_can_be_made";
    let possible = Command::new(NO_NAMESPACES[0])
        .args(&NO_NAMESPACES[1..])
        .arg("true")
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        return skip(
            test,
            "oci",
            "no user namespace can be made here to forbid others in",
        );
    }
    let up = Up::any(Setup {
        under: NO_NAMESPACES.map(str::to_owned).to_vec(),
        ..ada()
    })
    .await?;
    ensure!(
        up.text("isolation") == "process",
        "{:?}",
        up.says("isolation")
    );
    counts_across_a_sleep(&up).await
}

#[tokio::test]
async fn what_isolation_lacks_here_is_said_everywhere() -> anyhow::Result<()> {
    let Some(up) = Up::start("what_isolation_lacks_here", ada()).await? else {
        return Ok(());
    };
    counts_across_a_sleep(&up).await
}
