//! A learner whose agent is an image's: turns run in it and in nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, ensure};
use carrel_testkit::registry;
use carrel_tests::{Setup, Up, agent};
use serde_json::json;

use crate::shell;

/// Counts in the workspace, with nothing but a shell.
const COUNT: &str = "n=0; [ -e n ] && read n < n; n=$((n + 1)); echo $n > n; echo $n";

/// This machine's shell with the libraries that it needs, where they are here.
fn shell_alone() -> anyhow::Result<Vec<registry::File>> {
    let needs = Command::new("ldd").arg("/bin/sh").output()?;
    let needs = String::from_utf8(needs.stdout)?;
    let words = needs
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let paths: BTreeSet<_> = words.chain(["/bin/sh"]).collect();
    paths
        .into_iter()
        .map(|path| {
            Ok((
                path.to_owned(),
                std::fs::read(path).context(path.to_owned())?,
            ))
        })
        .collect()
}

#[tokio::test]
async fn a_learner_has_turns_in_an_image_and_goes_on_after_sleep() -> anyhow::Result<()> {
    let mut files = shell_alone()?;
    files.push(("/lesson".to_owned(), b"fractions\n".to_vec()));
    let config = json!({"Entrypoint": ["/bin/sh"]});
    let image = registry::serve(&files, &config).await?;
    let mut class = shell::class("school", &json!({}));
    class["spec"]["agent"] = json!({"adapter": "Command", "image": image, "command": ["/bin/sh"]});
    let setup = Setup {
        documents: vec![class, agent::learner("ada", "school")],
        ..Setup::default()
    };
    let Some(up) = Up::start("turns_in_an_image", setup).await? else {
        return Ok(());
    };
    let api = &up.api;
    ensure!(api.reply("ada", COUNT).await? == "1\n");
    let look = "read lesson < /lesson; echo $lesson $PWD; [ -e /usr/bin/perl ] || echo alone";
    let said = api.reply("ada", look).await?;
    ensure!(said == "fractions /workspace\nalone\n", "{said}");
    api.sleep("ada").await?;
    ensure!(api.reply("ada", COUNT).await? == "2\n");
    Ok(())
}
