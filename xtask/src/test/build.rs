//! One build of everything by cargo, and the executables that came of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cargo;

/// The executable, the crates, all tests: built together, so that dependencies are built once, with the same features.
pub(crate) const EVERYTHING: [&str; 4] = ["--workspace", "--bins", "--examples", "--tests"];

/// An executable that a build made.
pub(crate) struct Artifact {
    pub(crate) package: String,
    /// The package's folder, where cargo runs its tests.
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `example` or `bench`.
    pub(crate) kind: String,
    pub(crate) is_test: bool,
    pub(crate) executable: PathBuf,
}

/// Builds what the arguments say. Warnings and errors go to the terminal.
pub(crate) fn build(arguments: &[&str]) -> anyhow::Result<Vec<Artifact>> {
    run("build", arguments, &[])
}

/// Builds by another of cargo's commands, whose `last` arguments stand after all others.
pub(crate) fn run(
    command: &str,
    arguments: &[&str],
    last: &[&str],
) -> anyhow::Result<Vec<Artifact>> {
    let output = cargo::cargo()
        .arg(command)
        .args(arguments)
        .args(["--quiet", "--message-format", "json-render-diagnostics"])
        .args(last)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting cargo {command}"))?;
    if !output.status.success() {
        bail!("cargo {command}: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("reading what cargo says")?;
    Ok(messages.lines().filter_map(artifact).collect())
}

/// Reads one of cargo's messages; most tell of libraries and build scripts, and are nothing to run.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    let target = &message["target"];
    Some(Artifact {
        package: package(message["package_id"].as_str()?),
        folder: folder.to_owned(),
        name: target["name"].as_str()?.to_owned(),
        kind: target["kind"][0].as_str()?.to_owned(),
        is_test: message["profile"]["test"] == true,
        executable: PathBuf::from(message["executable"].as_str()?),
    })
}

/// The name in a package's id, `path+file:///here/crates/core#carrel-core@0.1.0` or, where the folder has the same
/// name, `path+file:///here/crates/carrel#0.1.0`.
fn package(id: &str) -> String {
    let (place, version) = id.split_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => place.rsplit('/').next().unwrap_or(place).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id_or_by_its_folder() {
        assert_eq!(
            package("path+file:///here/crates/core#carrel-core@0.1.0"),
            "carrel-core"
        );
        assert_eq!(package("path+file:///here/crates/carrel#0.1.0"), "carrel");
    }

    #[test]
    fn only_executables_are_artifacts_to_run() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///h/crates/vault#carrel-vault@0.1.0",
            "manifest_path":"/h/crates/vault/Cargo.toml","target":{"kind":["test"],"name":"fence"},
            "profile":{"test":true},"executable":"/t/debug/deps/fence-1f"}"#;
        let found = artifact(&line.replace('\n', "")).unwrap();
        assert_eq!(found.package, "carrel-vault");
        assert_eq!(found.folder, Path::new("/h/crates/vault"));
        assert_eq!(
            (found.name.as_str(), found.kind.as_str(), found.is_test),
            ("fence", "test", true)
        );
        assert_eq!(found.executable, Path::new("/t/debug/deps/fence-1f"));
        assert!(
            artifact(
                &line
                    .replace('\n', "")
                    .replace("\"/t/debug/deps/fence-1f\"", "null")
            )
            .is_none()
        );
        assert!(artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
