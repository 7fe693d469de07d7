//! Where nothing isolates: the same turns, and everything says that nothing isolates.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use carrel_tests::variables::unheard;
use carrel_tests::{Setup, Up, agent, carrel, machine, wait};
use serde_json::json;

use crate::all_say_the_same;

const TOLD: &str = "nothing isolates learners from each other or from this machine";

fn plain() -> Setup {
    let mut imaged = agent::command("imaged", &json!({}));
    imaged["spec"]["agent"]["image"] = json!("127.0.0.1:9/school:one");
    Setup {
        documents: vec![
            agent::http("by-http", &json!({})),
            agent::command("by-command", &json!({})),
            imaged,
            agent::learner("http", "by-http"),
            agent::learner("command", "by-command"),
            agent::learner("imaged", "imaged"),
            agent::learner("built-in", "default"),
        ],
        settings: Some(json!({"fleet": {"isolation": "process"}})),
        ..Setup::default()
    }
}

#[tokio::test]
async fn turns_run_without_isolation_and_everything_says_that_nothing_isolates()
-> anyhow::Result<()> {
    let Some(up) = Up::start("turns_without_isolation", plain()).await? else {
        return Ok(());
    };
    let api = &up.api;
    for learner in ["http", "command"] {
        ensure!(api.reply(learner, "count").await? == "1");
        ensure!(api.reply(learner, "count").await? == "2");
        api.sleep(learner).await?;
        ensure!(
            api.reply(learner, "count").await? == "3",
            "{learner} goes on"
        );
        ensure!(up.text("isolation") == "process");
        all_say_the_same(&up, learner).await?;
    }
    ensure!(up.says("limits_missing") == &json!(["cpu", "memory", "pids"]));
    ensure!(!api.reply("built-in", "hello").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_image_is_refused_and_its_command_does_not_run_here() -> anyhow::Result<()> {
    let Some(up) = Up::start("an_image_without_isolation", plain()).await? else {
        return Ok(());
    };
    let error = up.api.failure("imaged", "count").await?;
    ensure!(error.text("code") == "agent_not_ready", "{error:?}");
    let failed = up.api.logged("imaged", "failed").await?;
    let reason = failed[0]["operator_reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("an image needs containers"), "{reason}");
    Ok(())
}

#[test]
fn the_banner_says_that_nothing_isolates() -> anyhow::Result<()> {
    let folder = tempfile::TempDir::with_prefix("carrel-tests-")?;
    let data = folder.path().join("data");
    let mut server = unheard(&mut Command::new(carrel()?))
        .args(["up", "--isolation", "process", "--listen", "127.0.0.1:0"])
        .args(["--model-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = server.stdout.take().context("its words are ours")?;
    let said = wait::lines(stdout, |line| line.starts_with("Stop"));
    server.kill()?;
    server.wait()?;
    machine::remove_run_dir(&data);
    let said = said?;
    let isolation = "  isolation  process (not limited here: cpu, memory, pids)";
    ensure!(said.iter().any(|line| line == isolation), "{said:#?}");
    let note = format!("  note       {TOLD}: isolation 'process' was asked for");
    ensure!(said.contains(&note), "{said:#?}");
    Ok(())
}
