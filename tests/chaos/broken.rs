//! An executable in which invariants are broken on purpose: a copy of the sources, changed, and built beside the real one. It
//! shares what was built of other people's crates and nothing of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::audit::{Findings, Rule};

/// A line of the sources that keeps an invariant, and what stands there instead.
struct Break {
    file: &'static str,
    line: &'static str,
    instead: &'static str,
    /// What the auditor must say of it.
    rule: Rule,
    /// Its evidence, in one sentence: what was done that must not be. That nothing was seen is none.
    shows: [&'static str; 2],
}

const BREAKS: [Break; 5] = [
    Break {
        file: "crates/store-postgres/src/write.rs",
        line: "epoch.is_some_and(|epoch| epoch < fence)",
        instead: "epoch.is_some_and(|epoch| epoch < fence && fence < epoch)",
        rule: Rule::Fence,
        shows: ["an old token at vault-", "was answered: 200 OK"],
    },
    Break {
        file: "crates/store-postgres/src/commit.rs",
        line: "&& standing.runs_in(commit.epoch)",
        instead: "&& !standing.turn.state.is_ended()",
        rule: Rule::Fence,
        shows: ["a Commit of ", "was answered: HTTP/1.1 200"],
    },
    Break {
        file: "crates/store-postgres/src/ledger.rs",
        line: "($2::bigint IS NULL OR l.fence <= $2)",
        instead: "($2::bigint IS NULL OR l.fence >= 0)",
        rule: Rule::Fence,
        shows: ["a Call of ", "was answered: HTTP/1.1 200"],
    },
    Break {
        file: "crates/store-postgres/src/ledger.rs",
        line: "WHERE $5 <= greatest(coalesce($9 - in_day, $5), 0)",
        instead: "WHERE $5 <= greatest(coalesce($9 - in_day, $5), $5)",
        rule: Rule::Budget,
        shows: ["the provider bills ", "who may spend"],
    },
    // Whoever owned a turn renews its lease, whatever the owner and the generation are now.
    Break {
        file: "crates/store-postgres/src/claim.rs",
        line: "ON t.turn_id = r.turn_id AND t.lease_owner = r.owner AND t.lease_generation = r.generation",
        instead: "ON t.turn_id = r.turn_id",
        rule: Rule::Fence,
        shows: [
            "woke up and ran turn",
            "to its end, which another had taken",
        ],
    },
];

/// The version of ours, and that of what is broken.
const VERSION: (&str, &str) = ("version = \"0.1.0\"", "version = \"0.1.0-broken\"");

/// Where it was broken and the auditor has no evidence of it.
pub(crate) fn unseen(findings: &Findings) -> Vec<&'static str> {
    let is_seen = |broken: &Break| {
        let mut said = findings.0.iter().filter(|said| said.rule == broken.rule);
        said.any(|said| broken.shows.iter().all(|shows| said.what.contains(shows)))
    };
    let unseen = BREAKS.iter().filter(|broken| !is_seen(broken));
    unseen.map(|broken| broken.line).collect()
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

#[test]
fn that_nothing_was_seen_is_no_evidence() {
    let mut findings = Findings::default();
    for rule in [Rule::Fence, Rule::Budget] {
        findings.add(rule, "a late Commit of ivy: not within 30 s: it is held");
        findings.add(rule, "no late Commit was seen");
        findings.add(rule, "gateway-1 was not seen to let turn t1 go");
    }
    assert_eq!(unseen(&findings), BREAKS.map(|broken| broken.line));
}
