//! Without isolation nothing but us ends an agent: also when all who know it are killed at the same instant.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::up::signal;
use carrel_tests::{Setup, Up, agent, eventually, machine};
use rustix::process::Signal;
use serde_json::json;

const LONG: Duration = Duration::from_secs(20);
/// Words that nothing else on this machine runs with.
const SLEEPING: [&str; 2] = ["sleep", "86399.25"];

#[tokio::test]
async fn an_agent_without_isolation_does_not_outlive_those_who_know_it() -> anyhow::Result<()> {
    let script = format!("setsid {0} & {0} & exec {0}", SLEEPING.join(" "));
    let class = json!({"agent": {"adapter": "Command", "command": ["/bin/sh", "-c", script]}});
    let setup = Setup {
        documents: vec![
            agent::command("sleeping", &class),
            agent::learner("ada", "sleeping"),
        ],
        settings: Some(json!({"fleet": {"isolation": "process"}})),
        ..Setup::default()
    };
    let Some(mut up) = Up::start("an agent without isolation", setup).await? else {
        return Ok(());
    };
    up.api.post("ada", "sleep", "k").await?;
    let first = asleep(&[]).await?;
    let pod = machine::pods(up.pid()).pop().context("its pod")?;
    at_once(&[pod.sidecar, pod.shim.context("its shim")?])?;
    gone("the server ends them", &first).await?;
    let second = asleep(&first).await?;
    let pod = machine::pods(up.pid()).pop().context("the next pod")?;
    at_once(&[pod.sidecar, pod.shim.context("its shim")?, up.pid()])?;
    ensure!(
        second.iter().all(|pid| machine::lives(*pid)),
        "nobody is left who could end them"
    );
    up.kill().context("it is reaped")?;
    up.again().await?;
    ensure!(
        !second.iter().any(|pid| machine::lives(*pid)),
        "the next server ends them before it is ready"
    );
    Ok(())
}

/// The agent's three processes, other than these.
async fn asleep(before: &[u32]) -> anyhow::Result<Vec<u32>> {
    eventually("the agent and what it started run", LONG, || async {
        let mut found = machine::running(&SLEEPING);
        found.retain(|pid| !before.contains(pid));
        Ok((found.len() == 3).then_some(found))
    })
    .await
}

async fn gone(what: &str, pids: &[u32]) -> anyhow::Result<()> {
    let none = || async { Ok((!pids.iter().any(|pid| machine::lives(*pid))).then_some(())) };
    eventually(what, LONG, none).await
}

/// Kills processes so that none can do anything about the end of another.
fn at_once(pids: &[u32]) -> anyhow::Result<()> {
    for kind in [Signal::STOP, Signal::KILL] {
        for pid in pids {
            signal(*pid, kind)?;
        }
    }
    Ok(())
}
