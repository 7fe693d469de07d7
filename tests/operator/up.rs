//! `carrel up` itself: what it prints, which ports it opens, and how it ends when it is interrupted.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::up::interrupt;
use carrel_tests::{Setup, Up, agent, eventually, machine};
use serde_json::{Value, json};

async fn with_ada(test: &str) -> anyhow::Result<Option<Up>> {
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        keeps_log: true,
        ..Setup::default()
    };
    Up::start(test, setup).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_interrupted_in_the_middle_of_a_turn_saves_everything_and_ends_well()
-> anyhow::Result<()> {
    let Some(mut up) = with_ada("interrupted").await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    let turn = in_the_middle_of(&up, "slow 50").await?;
    interrupt(up.pid())?;
    let status = up.ended().await?;
    assert_eq!(status.code(), Some(0), "{}", up.log()?);
    assert_eq!(up.said()?.lines().count(), 1, "one line, from start to end");
    assert!(!up.data().join("run.json").exists());

    up.again().await?;
    let turn = up.api.turn("ada", &turn).await?;
    assert_eq!(
        (&turn["state"], &turn["attempts"]),
        (&json!("done"), &json!(1)),
        "it was waited for: {turn}"
    );
    assert_eq!(up.api.reply("ada", "count").await?, "3", "it was saved");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_interrupt_ends_it_at_once() -> anyhow::Result<()> {
    let Some(mut up) = with_ada("interrupted twice").await? else {
        return Ok(());
    };
    // Nothing that runs ends by itself.
    in_the_middle_of(&up, "hang").await?;
    interrupt(up.pid())?;
    eventually("the first is heard", Duration::from_secs(20), || async {
        let log = up.log()?;
        Ok(log.contains("once more to end at once").then_some(()))
    })
    .await?;
    let again = Instant::now();
    interrupt(up.pid())?;
    let status = up.ended().await?;
    assert_eq!(status.code(), Some(130), "{}", up.log()?);
    assert!(again.elapsed() < Duration::from_secs(10));
    assert!(!up.data().join("run.json").exists());
    Ok(())
}

/// Sends a message and waits until its answer has begun: the turn.
async fn in_the_middle_of(up: &Up, text: &str) -> anyhow::Result<String> {
    let mut stream = up.api.post_and_follow("ada", text, text).await?;
    loop {
        let event = stream.next().await?.context("the turn goes on")?;
        if event.name == "delta" {
            return Ok(event.text("turn_id").to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_in_one_line_and_in_a_private_file_what_clients_need() -> anyhow::Result<()> {
    let setup = Setup {
        settings: Some(json!({"fleet": {"isolation": "auto"}})),
        flags: vec!["--isolation", "process"],
        ..Setup::default()
    };
    let up = Up::start("told", setup).await?;
    let up = up.context("processes can always be had")?;
    let told = up.ready();
    let keys: BTreeSet<_> = told.as_object().context("an object")?.keys().collect();
    let wanted = [
        "admin_token_file",
        "data_dir",
        "gateway_url",
        "isolation",
        "limits_missing",
        "model_url",
        "pid",
        "providers",
    ];
    assert!(keys.into_iter().eq(wanted.iter()), "{told}");
    assert_eq!(told["isolation"], "process", "a flag wins over the file");
    assert_eq!(told["pid"], up.pid());
    assert_eq!(told["data_dir"], up.data().display().to_string());
    assert_eq!(up.said()?.lines().count(), 1);

    let file = up.data().join("run.json");
    assert_eq!(
        serde_json::from_slice::<Value>(&std::fs::read(&file)?)?,
        *told
    );
    for private in [file, up.text("admin_token_file").into()] {
        let mode = std::fs::metadata(&private)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", private.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_listens_on_the_two_ports_that_it_names_and_a_learner_awake_adds_none()
-> anyhow::Result<()> {
    let Some(up) = with_ada("ports").await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    let port = |key: &str| -> anyhow::Result<u16> {
        let (_, port) = up.text(key).rsplit_once(':').context("a port")?;
        Ok(port.parse()?)
    };
    let named = BTreeSet::from([port("gateway_url")?, port("model_url")?]);
    assert_eq!(machine::listening(up.pid())?, named);
    let pods = machine::pods(up.pid());
    assert_eq!(pods.len(), 1);
    assert_eq!(machine::listening(pods[0].sidecar)?, BTreeSet::new());
    Ok(())
}
