//! A learner is stopped, put to sleep, woken, set back, erased.

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::{Api, Setup, Up, agent, eventually, machine};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::with_ada;

#[tokio::test]
async fn a_stopped_turn_keeps_what_was_said_and_done() -> anyhow::Result<()> {
    let Some(up) = with_ada("a stopped turn", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    let mut stream = api.post_and_follow("ada", "slow 1000", "k").await?;
    let waiting = api.post("ada", "count", "waiting").await?;
    let mut said = 0;
    let mut outcome = None;
    while let Some(event) = stream.next().await? {
        said += usize::from(event.name == "delta");
        if said == 5 && event.name == "delta" {
            for turn in [&waiting.turn, event.text("turn_id")] {
                let path = format!("/v1/learners/ada/turns/{turn}/stop");
                let (status, body) = api.call(Method::POST, &path, None).await?;
                assert!(status.is_success(), "{status}: {body}");
            }
        }
        outcome = Some(event);
    }
    let outcome = outcome.context("a turn has an outcome")?;
    assert_eq!(
        (outcome.name.as_str(), &outcome.data["stopped"]),
        ("done", &json!(true))
    );
    let text = outcome.data["reply"]["text"].as_str().unwrap_or_default();
    println!("after {said} pieces: {text}");
    assert!(text.starts_with("1 1 2 3") && text.len() < 400, "{text}");
    assert!(
        outcome.data["snapshot_id"].is_string(),
        "it was committed: {outcome:?}"
    );
    let never_ran = api.turn("ada", &waiting.turn).await?;
    assert_eq!(
        (&never_ran["stopped"], &never_ran["attempts"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(
        api.reply("ada", "count").await?,
        "2",
        "what the stopped turn did was kept"
    );
    Ok(())
}

async fn is_in(api: &Api, state: &str) -> anyhow::Result<Value> {
    eventually(
        &format!("ada is {state}"),
        Duration::from_secs(20),
        || async {
            let document = api.learner("ada").await?;
            Ok((document["state"] == state).then_some(document))
        },
    )
    .await
}

#[tokio::test]
async fn a_learner_asleep_has_no_process_and_wakes_where_it_was() -> anyhow::Result<()> {
    let Some(up) = with_ada("asleep and awake", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let pods = machine::pods(up.pid());
    assert!(!machine::left_of(&up.data(), &pods).is_empty());
    api.sleep("ada").await?;
    let left = machine::left_of(&up.data(), &pods);
    assert!(
        left.is_empty() && machine::pods(up.pid()).is_empty(),
        "{left:?}"
    );
    let asleep = api.learner("ada").await?;
    let (status, _) = api
        .call(Method::POST, "/v1/learners/ada/wake", None)
        .await?;
    assert_eq!(status, StatusCode::ACCEPTED);
    let awake = is_in(api, "Ready").await?;
    assert!(
        awake["epoch"].as_u64() > asleep["epoch"].as_u64(),
        "{asleep} {awake}"
    );
    let accepted = api.post("ada", "count", "again").await?;
    let turn = eventually("the turn is done", Duration::from_secs(20), || async {
        let turn = api.turn("ada", &accepted.turn).await?;
        Ok((turn["state"] == "done").then_some(turn))
    })
    .await?;
    assert_eq!(turn["reply"]["text"], "2");
    for stage in ["agent", "snapshot"] {
        let took = turn["timing_ms"][stage].as_u64();
        assert!(took > Some(0), "{stage}: {turn}");
    }
    Ok(())
}

#[tokio::test]
async fn a_quiet_learner_falls_asleep_by_itself() -> anyhow::Result<()> {
    let more = json!({"idle": {"minSeconds": 1, "maxSeconds": 2}});
    let Some(up) = with_ada("a quiet learner", &more).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    is_in(&up.api, "Asleep").await?;
    assert!(machine::pods(up.pid()).is_empty());
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    Ok(())
}

#[tokio::test]
async fn an_erased_learner_is_gone_and_begins_anew_above_its_old_epochs() -> anyhow::Result<()> {
    let Some(up) = with_ada("an erased learner", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    for n in 1..=3 {
        assert_eq!(api.reply("ada", "count").await?, n.to_string());
    }
    let before = api.learner("ada").await?;
    let old = machine::pods(up.pid());
    let erased = up
        .command(&["learner", "rm", "ada", "--yes", "--wait"])?
        .output()?;
    assert!(erased.status.success(), "{erased:?}");
    for path in [
        "/admin/v1/learners/ada",
        "/v1/learners/ada/messages",
        "/v1/learners/ada/events",
    ] {
        let (status, body) = api.call(Method::GET, path, None).await?;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body}");
    }
    let body = json!({"id": "ada", "class": "counting"});
    api.admin(Method::POST, "learners", Some(body)).await?;
    let left = machine::left_of(&up.data(), &old);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        api.reply("ada", "count").await?,
        "1",
        "it begins with nothing"
    );
    let after = api.learner("ada").await?;
    println!("epoch {} before, {} after", before["epoch"], after["epoch"]);
    assert!(
        after["epoch"].as_u64() > before["epoch"].as_u64(),
        "the fence was forgotten"
    );
    Ok(())
}

#[tokio::test]
async fn an_older_snapshot_is_taken_as_the_newest_state() -> anyhow::Result<()> {
    let Some(up) = with_ada("an older snapshot", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    let mut snapshots = Vec::new();
    for n in 1..=3 {
        let events = api.ask("ada", "count").await?;
        let done = &events.last().context("a turn has an outcome")?.data;
        assert_eq!(done["reply"]["text"], n.to_string());
        snapshots.push(done["snapshot_id"].clone());
    }
    let body = json!({"snapshot_id": snapshots[0]});
    api.admin(Method::POST, "learners/ada/restore", Some(body))
        .await?;
    assert_eq!(
        api.reply("ada", "count").await?,
        "2",
        "it goes on from the first"
    );
    assert_eq!(api.logged("ada", "restored").await?.len(), 1);
    let body = json!({"snapshot_id": snapshots[2]});
    api.admin(Method::POST, "learners/ada/restore", Some(body))
        .await?;
    assert_eq!(
        api.reply("ada", "count").await?,
        "4",
        "what was newer is still there"
    );
    Ok(())
}

#[tokio::test]
async fn a_changed_class_is_in_force_at_the_next_wake() -> anyhow::Result<()> {
    let says_other = json!({"adapter": "Command", "command": ["/bin/echo", "other"]});
    let documents = vec![
        agent::http("counting", &json!({})),
        agent::command("other", &json!({"agent": says_other})),
        agent::learner("ada", "counting"),
    ];
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let Some(up) = Up::start("a changed class", setup).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let changed = api.admin(
        Method::PATCH,
        "learners/ada",
        Some(json!({"class": "other"})),
    );
    assert_eq!(changed.await?["class"], "other");
    assert_eq!(
        api.reply("ada", "count").await?,
        "2",
        "it is awake as it was"
    );
    api.sleep("ada").await?;
    assert_eq!(api.reply("ada", "count").await?.trim(), "other");
    Ok(())
}

#[tokio::test]
async fn a_turns_document_says_where_its_time_went() -> anyhow::Result<()> {
    let Some(up) = with_ada("a turn's time", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    let turn = async || -> anyhow::Result<Value> {
        let events = api.ask("ada", "count").await?;
        let last = events.last().context("a turn has an outcome")?;
        api.turn("ada", last.text("turn_id")).await
    };
    let took = |turn: &Value, stage: &str| turn["timing_ms"][stage].as_u64();
    turn().await?;
    api.sleep("ada").await?;
    let cold = turn().await?;
    assert_eq!(cold["start_kind"], "cold", "{cold}");
    let (wake, restore) = (took(&cold, "wake"), took(&cold, "restore"));
    assert!(Some(0) < restore && restore < wake, "{cold}");

    let slow = api.post("ada", "slow 100", "slow").await?;
    let live = turn().await?;
    assert_eq!(live["start_kind"], "live", "{live}");
    assert_eq!(took(&live, "restore"), Some(0), "{live}");
    let slow = api.turn("ada", &slow.turn).await?;
    assert!(took(&slow, "agent") >= Some(200), "{slow}");
    assert!(
        took(&live, "queue") > Some(100),
        "it waited for the other: {live}"
    );
    Ok(())
}
