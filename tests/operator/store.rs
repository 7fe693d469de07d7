//! The operator asks whether what is stored adds up.

use std::fs;

use anyhow::Context as _;
use carrel_tests::{Setup, Up, agent};
use serde_json::json;

use crate::said;

#[tokio::test]
async fn a_store_is_looked_at_while_no_server_runs_on_its_file() -> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        ..Setup::default()
    };
    let Some(mut up) = Up::start("a store is looked at", setup).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    let config = up.config().display().to_string();
    let look = |up: &Up, words: &[&str]| {
        let words = [words, &["--config", &config]].concat();
        said(up.command(&words)?.output()?)
    };
    let busy = look(&up, &["store", "check"])?;
    assert_eq!(busy.status, Some(6), "{busy:?}");
    assert!(busy.stderr.contains("a server runs on"), "{busy:?}");
    up.terminate().await?;
    let fine = look(&up, &["store", "check"])?;
    assert_eq!(
        (fine.status, fine.stdout.as_str()),
        (Some(0), ""),
        "{fine:?}"
    );
    let rebuilt = look(&up, &["store", "rebuild", "usage"])?;
    assert_eq!(rebuilt.status, Some(0), "{rebuilt:?}");

    let repositories = fs::read_dir(up.data().join("objects"))?;
    let folders = repositories.filter_map(|entry| Some(entry.ok()?.path().join("snapshots")));
    let folder = folders
        .into_iter()
        .find(|folder| folder.is_dir())
        .context("ada has snapshots")?;
    for snapshot in fs::read_dir(&folder)? {
        fs::remove_file(snapshot?.path())?;
    }
    let wrong = look(&up, &["store", "check"])?;
    assert_eq!(wrong.status, Some(1), "{wrong:?}");
    assert!(
        wrong.stdout.starts_with("ada: its newest snapshot is not"),
        "{wrong:?}"
    );
    Ok(())
}
