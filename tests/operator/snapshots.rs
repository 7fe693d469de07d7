//! Snapshots named by the beginning of their names, and what is said of what is there already.

use anyhow::Context as _;
use carrel_tests::{Setup, Up, agent};
use serde_json::json;

use crate::said;

#[tokio::test]
async fn a_snapshot_is_named_by_its_beginning_and_what_shares_it_is_said() -> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::learner("ada", "counting"),
        ],
        ..Setup::default()
    };
    let Some(up) = Up::start("the beginning of a snapshot", setup).await? else {
        return Ok(());
    };
    for turn in ["1", "2"] {
        assert_eq!(up.api.reply("ada", "count").await?, turn);
    }
    let asked = |words: &[&str]| said(up.command(words)?.output()?);
    let listed = asked(&["snapshot", "ls", "ada", "-o", "name"])?;
    let oldest = listed.stdout.lines().last().context("a snapshot")?;
    let short = &oldest[..8];
    let intact = asked(&["snapshot", "verify", "ada", short])?;
    assert!(
        intact.stderr.contains(&format!("{oldest} is intact")),
        "{intact:?}"
    );
    // Every name has the empty beginning; of sixteen digits two are taken.
    let unclear = asked(&["snapshot", "verify", "ada", ""])?;
    assert_eq!(unclear.status, Some(2), "{unclear:?}");
    let restored = asked(&["snapshot", "restore", "ada", short, "--yes"])?;
    assert_eq!(restored.status, Some(0), "{restored:?}");
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    up.api.sleep("ada").await?;
    let asking = asked(&["snapshot", "rm", "ada", short])?;
    assert!(asking.stderr.contains("which generations "), "{asking:?}");
    let removed = asked(&["snapshot", "rm", "ada", short, "--yes"])?;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    assert!(removed.stderr.contains("share"), "{removed:?}");
    let gone = asked(&["snapshot", "rm", "ada", short, "--yes"])?;
    assert_eq!(gone.status, Some(4), "{gone:?}");

    let again = asked(&["learner", "create", "ada", "--class", "counting"])?;
    assert_eq!(again.status, Some(0), "{again:?}");
    assert!(
        again.stderr.contains("'ada' was there already"),
        "{again:?}"
    );
    let nowhere = asked(&["learner", "create", "eve", "--class", "nope"])?;
    assert!(
        nowhere.stderr.contains("there are counting, default"),
        "{nowhere:?}"
    );
    assert!(!nowhere.stderr.contains("/admin"), "{nowhere:?}");
    Ok(())
}
