//! `carrel learner chat` as people and programs use it.

use std::process::Stdio;

use anyhow::ensure;
use carrel_tests::{Place, Setup, Up, agent};
use serde_json::{Value, json};

use crate::{Said, carrel, said};

/// What the agent answers to `slow 100` in its second turn.
fn reply(turn: u32) -> String {
    let pieces: Vec<_> = (1..=100).map(|piece: u32| format!(" {piece}")).collect();
    format!("{turn}{}", pieces.concat())
}

async fn with_ada(test: &str) -> anyhow::Result<Option<Up>> {
    let documents = vec![
        agent::http("counting", &json!({})),
        agent::learner("ada", "counting"),
    ];
    Up::start(
        test,
        Setup {
            documents,
            ..Setup::default()
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_goes_on_when_its_server_is_killed_and_started_again_in_the_middle_of_a_turn()
-> anyhow::Result<()> {
    let Some(mut up) = with_ada("a chat over a restart").await? else {
        return Ok(());
    };
    let mut seen = Place(0, 0);

    // As data: every event that came, each once.
    let said = interrupted(&mut up, &mut seen, &["-o", "json"]).await?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let events = events(&said.stdout)?;
    let restart = events
        .iter()
        .position(|event| event["type"] == "restart")
        .expect("the attempt that was killed is void");
    let (before, after) = (text(&events[..restart]), text(&events[restart..]));
    assert!(
        !before.is_empty() && reply(1).starts_with(&before),
        "nothing twice before the server was killed: {before}"
    );
    assert_eq!(after, reply(1), "nothing twice after it");
    let done: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "done")
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0]["reply"]["text"], reply(1));

    // As a text that is no terminal's: the reply, once.
    let said = interrupted(&mut up, &mut seen, &[]).await?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert_eq!(said.stdout, format!("{}\n", reply(2)));
    assert!(said.stderr.contains("trying again"), "{}", said.stderr);
    assert_eq!(
        up.api.logged("ada", "queued").await?.len(),
        2,
        "no message was doubled"
    );
    Ok(())
}

/// Asks for a slow reply; once it has begun, kills the server and starts it again, on another port.
async fn interrupted(up: &mut Up, seen: &mut Place, more: &[&str]) -> anyhow::Result<Said> {
    let words = [&["learner", "chat", "ada", "slow 100"], more].concat();
    let child = up
        .command(&words)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stream = up.api.events("ada", Some(*seen)).await?;
    let mut deltas = 0;
    while deltas < 3 {
        let event = stream.next().await?;
        let event = event.ok_or_else(|| anyhow::anyhow!("the stream ended before a delta"))?;
        deltas += usize::from(event.name == "delta");
        ensure!(!event.is_outcome(), "too early: {event:?}");
    }
    up.kill()?;
    up.again().await?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let mut stream = up.api.events("ada", Some(*seen)).await?;
    while !stream.next().await?.is_none_or(|event| event.is_outcome()) {}
    *seen = stream.last().unwrap_or(*seen);
    said(output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_wakes_is_told_each_thing_once() -> anyhow::Result<()> {
    let Some(up) = with_ada("told once").await? else {
        return Ok(());
    };
    let said = carrel(&up, &["learner", "chat", "ada", "count"], "")?;
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (Some(0), "1\n"),
        "{}",
        said.stderr
    );
    assert_eq!(
        said.stderr.matches("Fetching your notes…").count(),
        1,
        "{}",
        said.stderr
    );

    let said = carrel(&up, &["learner", "chat", "ada", "exit", "-o", "json"], "")?;
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    let events = events(&said.stdout)?;
    assert_eq!(
        events.last().map(|event| &event["type"]),
        Some(&json!("error"))
    );

    let said = carrel(&up, &["learner", "chat", "nobody", "count"], "")?;
    assert_eq!(said.status, Some(4), "{}", said.stderr);
    Ok(())
}

fn events(stdout: &str) -> anyhow::Result<Vec<Value>> {
    Ok(stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

fn text(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "delta");
    deltas.filter_map(|event| event["text"].as_str()).collect()
}
