//! The server itself is asked to end, or started twice.

use std::time::{Duration, Instant};

use carrel_tests::{Setup, Up, agent, eventually};
use serde_json::json;

use crate::with_ada;

#[tokio::test]
async fn a_server_asked_to_end_while_a_turn_runs_ends_well_and_the_turn_is_done_once()
-> anyhow::Result<()> {
    let Some(mut up) = with_ada("asked to end", &json!({})).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    let mut stream = up.api.post_and_follow("ada", "slow 50", "k").await?;
    while stream
        .next()
        .await?
        .is_some_and(|event| event.name != "delta")
    {}
    let waiting = up.api.post("ada", "count", "waiting").await?;
    let asked = Instant::now();
    let status = up.terminate().await?;
    println!("it ended after {:?} with {status}", asked.elapsed());
    assert!(status.success(), "{status}");
    assert!(!up.data().join("run.json").exists());

    up.again().await?;
    let mut stream = up.api.post_and_follow("ada", "slow 50", "k").await?;
    let mut outcomes = Vec::new();
    while let Some(event) = stream.next().await? {
        outcomes.extend(event.is_outcome().then_some(event));
    }
    assert_eq!(outcomes.len(), 1);
    let reply = outcomes[0].data["reply"]["text"]
        .as_str()
        .unwrap_or_default();
    assert!(
        reply.starts_with("2 1 2") && reply.ends_with(" 50"),
        "{:?}",
        outcomes[0]
    );
    let mut stream = up.api.post_and_follow("ada", "count", "waiting").await?;
    let mut last = None;
    while let Some(event) = stream.next().await? {
        last = Some(event);
    }
    let last = last.expect("the turn that waited has an outcome");
    assert_eq!(
        last.data["reply"]["text"], "3",
        "{last:?} of {}",
        waiting.turn
    );
    assert_eq!(up.api.logged("ada", "done").await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn an_idle_server_with_a_learner_awake_ends_at_once() -> anyhow::Result<()> {
    let Some(mut up) = with_ada("idle", &json!({})).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    // A page that is open is no reason to wait.
    let _page = up.api.events("ada", None).await?;
    let asked = Instant::now();
    let status = up.terminate().await?;
    println!("it ended after {:?} with {status}", asked.elapsed());
    assert!(
        status.success() && asked.elapsed().as_secs() < 10,
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_refuses_and_names_the_first() -> anyhow::Result<()> {
    let Some(up) = with_ada("a second server", &json!({})).await? else {
        return Ok(());
    };
    let words = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--model-listen",
        "127.0.0.1:0",
    ];
    let second = up.command(&words)?.output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(6), "{said}");
    assert!(said.contains(&format!("pid {}", up.pid())), "{said}");
    assert_eq!(
        up.api.reply("ada", "count").await?,
        "1",
        "the first is unharmed"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_follows_one_that_was_killed_says_what_was_kept_and_alarms_nobody()
-> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        keeps_log: true,
        ..Setup::default()
    };
    let Some(mut up) = Up::start("a server after one that was killed", setup).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    up.kill()?;
    up.again().await?;
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    let within = Duration::from_secs(20);
    let log = eventually("what was kept is said", within, || async {
        let log = up.log()?;
        let says = log.contains("no message is lost") && log.contains("awake=1");
        Ok(says.then_some(log))
    })
    .await?;
    for alarm in ["ERROR", "risk", "ends without its last snapshot"] {
        assert!(!log.contains(alarm), "{log}");
    }
    Ok(())
}
