//! An executable in which invariants are broken on purpose: a copy of the sources, changed, and built beside the real one. It
//! shares what was built of other people's crates and nothing of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::audit::Rule;

/// A line of the sources that keeps an invariant, and what stands there instead.
struct Break {
    file: &'static str,
    line: &'static str,
    instead: &'static str,
    /// What the auditor must say of it.
    rule: Rule,
}

const BREAKS: [Break; 3] = [
    Break {
        file: "crates/store-postgres/src/write.rs",
        line: "epoch.is_some_and(|epoch| epoch < fence)",
        instead: "epoch.is_some_and(|epoch| epoch < fence && fence < epoch)",
        rule: Rule::Fence,
    },
    Break {
        file: "crates/store-postgres/src/commit.rs",
        line: "&& standing.runs_in(commit.epoch)",
        instead: "&& !standing.turn.state.is_ended()",
        rule: Rule::Fence,
    },
    Break {
        file: "crates/store-postgres/src/ledger.rs",
        line: "WHERE $5 <= greatest(coalesce($9 - in_day, $5), 0)",
        instead: "WHERE $5 <= greatest(coalesce($9 - in_day, $5), $5)",
        rule: Rule::Budget,
    },
];

/// The version of ours, and that of what is broken.
const VERSION: (&str, &str) = ("version = \"0.1.0\"", "version = \"0.1.0-broken\"");

/// What the auditor must find in it.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules: Vec<_> = BREAKS.iter().map(|broken| broken.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// Builds it.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests are a folder of the workspace")?;
    // TARGET/debug/deps/this
    let this = std::env::current_exe()?;
    let target = this
        .ancestors()
        .nth(3)
        .context("a test lies in a target folder")?;
    let folder = target.join("broken");
    let copy = folder.join("source");
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "crates",
        "tests",
        "xtask",
    ] {
        mirror(&root.join(name), &copy.join(name))?;
    }
    // By another version cargo tells our crates from those that are whole.
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let (line, instead) = VERSION;
    ensure!(
        manifest.matches(line).count() == 1,
        "Cargo.toml does not have '{line}' once"
    );
    write(
        &copy.join("Cargo.toml"),
        manifest.replace(line, instead).as_bytes(),
    )?;
    for path in BREAKS.map(|broken| broken.file) {
        let mut text = fs::read_to_string(root.join(path))?;
        for broken in BREAKS.iter().filter(|broken| broken.file == path) {
            ensure!(
                text.matches(broken.line).count() == 1,
                "{path} does not have '{}' once: say here where the invariant is kept now",
                broken.line
            );
            text = text.replace(broken.line, broken.instead);
        }
        write(&copy.join(path), text.as_bytes())?;
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .current_dir(&copy)
        // With the small example the features of all dependencies are those of the build of everything.
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bin",
            "carrel",
            "--example",
            "snapshot-worker",
        ])
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("CARGO_BUILD_BUILD_DIR", target)
        .status()?;
    ensure!(status.success(), "the broken sources could not be built");
    Ok(folder.join("target/debug/carrel"))
}

/// Makes a copy like what is here, and touches nothing that is: so little is built anew.
fn mirror(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_file() {
        // What is to be broken is written once.
        let is_broken = BREAKS.iter().any(|broken| from.ends_with(broken.file));
        return if is_broken {
            Ok(())
        } else {
            write(to, &fs::read(from)?)
        };
    }
    fs::create_dir_all(to)?;
    let here: Vec<_> = fs::read_dir(from)?.collect::<Result<_, _>>()?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if here
            .iter()
            .any(|known| known.file_name() == entry.file_name())
        {
            continue;
        }
        if entry.path().is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in here {
        mirror(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn write(to: &Path, text: &[u8]) -> anyhow::Result<()> {
    if fs::read(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(to, text)?)
}
