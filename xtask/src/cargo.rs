//! How cargo is called: from the workspace's root, into the target folder that this run uses.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use carrel_cluster_tools::cache;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the workspace")
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
