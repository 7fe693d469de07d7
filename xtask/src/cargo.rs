//! How cargo is called: from the workspace's root, into the target folder that this run uses.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the workspace")
}

/// What Carrel's tests keep between runs: `$XDG_CACHE_HOME/carrel`, else `~/.cache/carrel`.
pub(crate) fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let caches = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(caches.join("carrel"))
}

/// A call of cargo that asks nobody anything. Under CI fresh clones share one target folder in the cache,
/// so that dependencies are built once.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).stdin(Stdio::null());
    share_target(&mut command);
    command
}

/// Gives a command the shared target folder where this run uses one.
pub(crate) fn share_target(command: &mut Command) {
    let chosen = env::var_os("CARGO_TARGET_DIR").is_some();
    if let Some(cache) = cache().filter(|_| env::var_os("CI").is_some() && !chosen) {
        command.env("CARGO_TARGET_DIR", cache.join("target"));
    }
}

/// What `cargo metadata` says of the workspace's own packages.
pub(crate) fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")
}
