//! A configuration that is edited while the server runs.

use std::time::Duration;

use carrel_tests::{Up, eventually};
use serde_json::{Value, json};

use crate::{carrel, plain};

/// Files are looked at every second, and a change counts when it has settled.
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_is_edited_serves_the_next_call_and_a_broken_file_changes_nothing()
-> anyhow::Result<()> {
    let route = |name: &str| format!("routes:\n  {name}: [{{model: demo/tutor}}]\n");
    let up = plain(
        "an edited route",
        json!({"routes": {"before": [{"model": "demo/tutor"}]}}),
    )
    .await?;
    assert!(models(&up)?.contains(&"before".to_owned()));
    assert_eq!(asked(&up, "before")?, 0);
    let said = carrel(&up, &["model", "test", "after"], "")?;
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.contains("'after'"), "{}", said.stderr);

    // Renamed: only that line of the file changes.
    let written = std::fs::read_to_string(up.config())?;
    std::fs::write(up.config(), written.replace("\"before\"", "\"after\""))?;
    heard(&up, "the changed configuration is in force").await?;
    let names = models(&up)?;
    assert!(names.contains(&"after".to_owned()), "{names:?}");
    assert!(!names.contains(&"before".to_owned()), "{names:?}");
    assert_eq!(asked(&up, "after")?, 0);
    assert_ne!(asked(&up, "before")?, 0);

    std::fs::write(
        up.config(),
        format!("{}fleet:\n  maxLife: 3\n", route("broken")),
    )?;
    let line = heard(&up, "the last good one stays in force").await?;
    assert!(line.contains("WARN"), "{line}");
    let place = format!("{}:4: fleet.maxLife:", up.config().display());
    assert!(
        line.contains(&place) && line.contains("did you mean 'maxLive'?"),
        "the file, the line, the key and the fault are named: {line}"
    );
    let names = models(&up)?;
    assert!(names.contains(&"after".to_owned()) && !names.contains(&"broken".to_owned()));
    assert_eq!(asked(&up, "after")?, 0);

    std::fs::write(up.config(), route("mended"))?;
    eventually("the mended file is in force", WITHIN, || async {
        Ok(models(&up)?.contains(&"mended".to_owned()).then_some(()))
    })
    .await?;
    assert_eq!(asked(&up, "mended")?, 0);
    Ok(())
}

/// The line of the server's log in which this stands.
async fn heard(up: &Up, words: &str) -> anyhow::Result<String> {
    eventually(words, WITHIN, || async {
        let log = up.log()?;
        Ok(log
            .lines()
            .find(|line| line.contains(words))
            .map(str::to_owned))
    })
    .await
}

fn models(up: &Up) -> anyhow::Result<Vec<String>> {
    let listed: Vec<Value> =
        serde_json::from_str(&carrel(up, &["model", "ls", "-o", "json"], "")?.stdout)?;
    let ids = listed.iter().filter_map(|model| model["id"].as_str());
    Ok(ids.map(str::to_owned).collect())
}

/// Asks a model for a word: how the command ended.
fn asked(up: &Up, model: &str) -> anyhow::Result<i32> {
    Ok(carrel(up, &["model", "test", model], "")?
        .status
        .unwrap_or(-1))
}
