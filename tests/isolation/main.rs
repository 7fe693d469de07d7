//! How learners are kept apart, and what is said of it: in containers, as an ordinary user, and where nothing isolates.

#![expect(clippy::print_stdout, reason = "tests print their evidence")]

mod calls;
mod groups;
mod image;
mod memory;
mod places;
mod plain;
mod sessions;

use anyhow::{Context as _, ensure};
use carrel_tests::{Up, shell};
use serde_json::Value;

/// Whether everything that speaks of isolation says the same of this server: its file, this learner's document, `doctor`.
async fn all_say_the_same(up: &Up, learner: &str) -> anyhow::Result<()> {
    let file: Value = serde_json::from_slice(&std::fs::read(up.data().join("run.json"))?)?;
    let document = up.api.learner(learner).await?;
    for key in ["isolation", "limits_missing"] {
        let said = up.says(key);
        ensure!(!said.is_null(), "the ready line has no {key}");
        ensure!(&file[key] == said, "run.json: {file}");
        ensure!(&document[key] == said, "{learner}: {document}");
    }
    let missing: Vec<_> = up
        .says("limits_missing")
        .as_array()
        .context("a list")?
        .iter()
        .collect();
    let missing: Vec<_> = missing.iter().filter_map(|limit| limit.as_str()).collect();
    let expected = match (up.text("isolation"), missing.as_slice()) {
        ("process", _) => {
            "note  isolation: nothing isolates learners from each other or from this machine"
                .to_owned()
        }
        (kind, []) => format!("ok    isolation: {kind}, all limits are set"),
        (kind, some) => format!(
            "note  isolation: {kind}, but not limited here: {}",
            some.join(", ")
        ),
    };
    let doctor = up.command(&["doctor"])?.output()?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    ensure!(
        said.lines().any(|line| line.starts_with(&expected)),
        "not '{expected}': {said}"
    );
    println!("{expected}");
    Ok(())
}
