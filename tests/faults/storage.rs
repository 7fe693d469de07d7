//! A snapshot that cannot be taken, or not yet: the turn fails aloud or waits, and the last good state stays.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::{Up, eventually};
use serde_json::json;

use crate::{with_ada, with_ada_after};

#[tokio::test]
async fn a_workspace_over_its_caps_fails_the_turn_and_the_last_good_one_stays() -> anyhow::Result<()>
{
    let more = json!({"snapshot": {"maxBytes": "4Mi", "maxFiles": 20}});
    let Some(up) = with_ada("over its caps", &more).await? else {
        return Ok(());
    };
    let api = &up.api;
    let mut count = 0;
    for message in ["write 6", "files 30"] {
        count += 1;
        assert_eq!(api.reply("ada", "count").await?, count.to_string());
        let before = api.learner("ada").await?["newest_snapshot"].clone();
        let error = api.failure("ada", message).await?;
        println!("{message}: {}", error.data);
        assert_eq!(error.text("code"), "workspace_limit");
        assert_eq!(api.learner("ada").await?["newest_snapshot"], before);
    }
    assert_eq!(api.reply("ada", "count").await?, "3");
    Ok(())
}

/// Changes the server's own mount of its objects.
fn remount(up: &Up, options: &str) -> anyhow::Result<()> {
    let objects = up.data().join("objects");
    let mut mount = Command::new("nsenter");
    mount.args(["--target", &up.pid().to_string(), "--mount", "mount", "-o"]);
    let status = mount
        .arg(format!("remount,{options}"))
        .arg(objects)
        .status()?;
    ensure!(status.success(), "remounting with {options}: {status}");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_fails_the_turn_and_room_lets_it_succeed() -> anyhow::Result<()> {
    let first = r#"mount -t tmpfs -o size=4m tmpfs "$DATA/objects""#;
    let Some(up) = with_ada_after("a full disk", first).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let before = api.learner("ada").await?["newest_snapshot"].clone();
    let error = api.failure("ada", "write 8").await?;
    println!("{}", error.data);
    assert_eq!(
        (error.text("code"), &error.data["retryable"]),
        ("snapshot_failed", &json!(true))
    );
    assert_eq!(api.learner("ada").await?["newest_snapshot"], before);
    assert_eq!(
        api.reply("ada", "count").await?,
        "2",
        "what is small still fits"
    );
    remount(&up, "size=64m")?;
    assert_eq!(api.reply("ada", "write 8").await?, "3");
    api.sleep("ada").await?;
    assert_eq!(api.reply("ada", "count").await?, "4");
    Ok(())
}

#[tokio::test]
async fn a_commit_waits_for_a_storage_that_is_away() -> anyhow::Result<()> {
    let first = r#"mount -t tmpfs -o size=64m tmpfs "$DATA/objects""#;
    let Some(up) = with_ada_after("storage away", first).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let accepted = api.post("ada", "slow 10", "k").await?;
    let mut stream = api.post_and_follow("ada", "slow 10", "k").await?;
    let mut outcome = None;
    while let Some(event) = stream.next().await? {
        if event.text("state") == "running" {
            remount(&up, "ro")?;
        }
        if event.text("state") == "snapshotting" {
            let turn = api.turn("ada", &accepted.turn).await?;
            assert_eq!(turn["state"], "running", "{turn}");
            // Every write is refused until a whole try has come to nothing.
            eventually("a snapshot fails", Duration::from_secs(30), || async {
                Ok(up.log()?.contains("the snapshot failed").then_some(()))
            })
            .await?;
            assert_eq!(api.turn("ada", &accepted.turn).await?["state"], "running");
            remount(&up, "rw")?;
        }
        outcome = Some(event);
    }
    let outcome = outcome.context("a turn has an outcome")?;
    assert_eq!(outcome.name, "done", "{outcome:?}");
    assert_eq!(
        api.turn("ada", &accepted.turn).await?["attempts"],
        1,
        "it only waited"
    );
    assert_eq!(api.reply("ada", "count").await?, "3");
    Ok(())
}

#[tokio::test]
async fn a_storage_that_cannot_be_read_keeps_the_learner_waiting_and_loses_nothing()
-> anyhow::Result<()> {
    let Some(up) = with_ada("storage that cannot be read", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    assert_eq!(api.reply("ada", "count").await?, "2");
    api.sleep("ada").await?;
    let packs = crate::damage::packs(&up.data().join("objects"))?;
    for pack in &packs {
        // Opening it fails with ELOOP: neither absent nor wrong.
        std::fs::rename(pack, pack.with_extension("aside"))?;
        std::os::unix::fs::symlink(pack, pack)?;
    }
    let accepted = api.post("ada", "count", "k").await?;
    let waiting = eventually(
        "ada waits and says why",
        Duration::from_secs(20),
        || async {
            let document = api.learner("ada").await?;
            let says = document["state_detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("vault"));
            Ok((document["state"] == "Restoring" && says).then_some(document))
        },
    );
    let waiting = match waiting.await {
        Ok(waiting) => waiting,
        Err(error) => return Err(error.context(api.learner("ada").await?)),
    };
    println!("{}", waiting["state_detail"]);
    for pack in &packs {
        std::fs::rename(pack.with_extension("aside"), pack)?;
    }
    let mut stream = api.post_and_follow("ada", "count", "k").await?;
    let mut last = None;
    while let Some(event) = stream.next().await? {
        last = Some(event);
    }
    let last = last.context("a turn has an outcome")?;
    assert_eq!(last.data["reply"]["text"], "3", "{last:?}");
    assert!(api.logged("ada", "fell_back").await?.is_empty());
    println!(
        "attempts: {}",
        api.turn("ada", &accepted.turn).await?["attempts"]
    );
    Ok(())
}
