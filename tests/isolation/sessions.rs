//! What a terminal sends to `carrel up` is for `carrel up` alone to handle.

use anyhow::{Context as _, ensure};
use carrel_tests::{Setup, Up, agent, machine};
use rustix::process::{Pid, Signal, getsid, kill_process_group};
use serde_json::json;

async fn an_interrupt_lets_the_turn_end(isolation: &str) -> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        settings: Some(json!({"fleet": {"isolation": isolation}})),
        // It leads a process group, as what a shell starts does.
        under: vec!["setsid".to_owned()],
        ..Setup::default()
    };
    let Some(mut up) = Up::start(&format!("an_interrupt_under_{isolation}"), setup).await? else {
        return Ok(());
    };
    ensure!(up.api.reply("ada", "count").await? == "1");
    let mut turn = up.api.post_and_follow("ada", "slow 20", "k").await?;
    while turn.next().await?.context("the turn goes on")?.name != "delta" {}

    let pod = machine::pods(up.pid()).pop().context("its pod")?;
    for pid in [pod.sidecar, pod.shim.context("its shim")?] {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        ensure!(
            getsid(pid)? == pid.context("a number")?,
            "{pid:?} has no session of its own"
        );
    }
    let group = Pid::from_raw(i32::try_from(up.pid())?).context("a number")?;
    ensure!(
        getsid(Some(group))? == group,
        "what is sent to its group is sent to those who stayed in it"
    );
    kill_process_group(group, Signal::INT)?;
    let mut last = None;
    while let Some(event) = turn.next().await? {
        last = Some(event);
    }
    let last = last.context("an outcome")?;
    let pieces: Vec<_> = (1..=20).map(|piece| piece.to_string()).collect();
    let whole = format!("2 {}", pieces.join(" "));
    ensure!(
        last.name == "done" && last.data["reply"]["text"] == whole,
        "{last:?}"
    );
    ensure!(up.ended().await?.success());
    up.again().await?;
    ensure!(up.api.reply("ada", "count").await? == "3");
    Ok(())
}

#[tokio::test]
async fn an_interrupt_of_its_group_reaches_the_server_and_no_container() -> anyhow::Result<()> {
    an_interrupt_lets_the_turn_end("auto").await
}

#[tokio::test]
async fn an_interrupt_of_its_group_reaches_the_server_and_no_plain_process() -> anyhow::Result<()> {
    an_interrupt_lets_the_turn_end("process").await
}
