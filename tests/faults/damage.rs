//! Stored bytes that are proved to be destroyed: the learner falls back, and it is said which turns were lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::with_ada;

/// The packs of all repositories below a folder.
pub(crate) fn packs(objects: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for repository in fs::read_dir(objects)? {
        let Ok(folders) = fs::read_dir(repository?.path().join("data")) else {
            continue;
        };
        for folder in folders {
            for file in fs::read_dir(folder?.path())? {
                found.insert(file?.path());
            }
        }
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flipped,
    Deleted,
}

impl Damage {
    fn to(self, pack: &Path) -> anyhow::Result<()> {
        match self {
            Self::Deleted => fs::remove_file(pack)?,
            Self::Flipped => {
                let mut bytes = fs::read(pack)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x40;
                let mode = fs::metadata(pack)?.permissions();
                fs::remove_file(pack)?;
                fs::write(pack, bytes)?;
                fs::set_permissions(pack, mode)?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_pack_with_a_flipped_bit_falls_back_and_says_what_was_lost() -> anyhow::Result<()> {
    falls_back("a flipped bit", Damage::Flipped).await
}

#[tokio::test]
async fn a_pack_that_is_gone_falls_back_and_says_what_was_lost() -> anyhow::Result<()> {
    falls_back("a pack that is gone", Damage::Deleted).await
}

async fn falls_back(test: &str, damage: Damage) -> anyhow::Result<()> {
    let Some(up) = with_ada(test, &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    let objects = up.data().join("objects");
    assert_eq!(api.reply("ada", "count").await?, "1");
    assert_eq!(api.reply("ada", "count").await?, "2");
    let before = packs(&objects)?;
    let lost = api.ask("ada", "slow 1").await?;
    let lost = lost.last().context("a turn has an outcome")?;
    assert_eq!(lost.data["reply"]["text"], "3 1");
    api.sleep("ada").await?;
    let new: Vec<_> = packs(&objects)?.difference(&before).cloned().collect();
    ensure!(!new.is_empty(), "the turn wrote packs");
    for pack in &new {
        damage.to(pack)?;
    }

    let events = api.ask("ada", "context").await?;
    let done = events.last().context("a turn has an outcome")?;
    let reply = done.data["reply"]["text"].as_str().unwrap_or_default();
    println!(
        "{damage:?} {} packs; the agent was told: {reply}",
        new.len()
    );
    assert!(
        reply.starts_with("3 context"),
        "it counts on from the second turn: {reply}"
    );
    assert!(
        reply.contains("slow 1") && reply.contains("3 1"),
        "it is told what was lost: {reply}"
    );
    let told = events
        .iter()
        .filter(|event| event.name == "state")
        .map(|e| e.text("detail"));
    let told: Vec<_> = told.filter(|detail| !detail.is_empty()).collect();
    println!("the learner was told: {told:?}");
    assert!(
        told.iter()
            .any(|line| line.contains("could not be restored")),
        "{told:?}"
    );

    // It is said for good: to a page that is loaded anew, and in the learner's document, asleep or awake.
    let mut all = api.events("ada", None).await?;
    let mut told_again = false;
    while let Some(event) = all.next().await? {
        told_again |= event.text("detail").contains("could not be restored");
        if event.is_outcome() && event.text("turn_id") == done.text("turn_id") {
            break;
        }
    }
    assert!(told_again, "the line is gone after a reload");
    for _ in 0..2 {
        let document = api.learner("ada").await?;
        let restored = document["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["type"] == "Restored"))
            .context("it was restored")?;
        println!("{} {restored}", document["state"]);
        assert_eq!(
            (&restored["status"], &restored["reason"]),
            (&json!("True"), &json!("FellBack"))
        );
        api.sleep("ada").await?;
    }

    let fell_back = api.logged("ada", "fell_back").await?;
    assert_eq!(fell_back.len(), 1);
    assert_eq!(
        fell_back[0]["lost_turns"],
        json!([lost.text("turn_id")]),
        "{fell_back:?}"
    );
    assert!(
        fell_back[0]["to"].as_u64() < fell_back[0]["from"].as_u64(),
        "{fell_back:?}"
    );
    let turn = api.turn("ada", lost.text("turn_id")).await?;
    assert_eq!(
        (&turn["state"], &turn["attempts"]),
        (&json!("done"), &json!(1)),
        "{turn}"
    );
    assert_eq!(
        api.reply("ada", "context").await?,
        "4 context none",
        "it is told once"
    );
    Ok(())
}
