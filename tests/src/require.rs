//! What tests need from outside: the executable, and things that a machine may lack.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};

/// The executable under test: the one that `CARREL_BIN` names, else what cargo builds in the target folder and profile of
/// this program.
///
/// # Errors
/// When it cannot be built.
pub fn carrel() -> anyhow::Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| named_or_built().map_err(|error| format!("{error:#}")));
    found
        .as_deref()
        .map_err(|error| anyhow::anyhow!(error.clone()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by variables what to run"
)]
fn named_or_built() -> anyhow::Result<PathBuf> {
    if let Ok(named) = std::env::var("CARREL_BIN") {
        return Ok(std::path::absolute(named)?);
    }
    // TARGET/PROFILE/deps/this
    let this = std::env::current_exe()?;
    ensure!(
        this.parent().is_some_and(|folder| folder.ends_with("deps")),
        "outside of cargo's folders CARREL_BIN must name the executable"
    );
    let profile = this
        .ancestors()
        .nth(2)
        .context("a test lies in a folder of its profile")?;
    let target = profile
        .parent()
        .context("a profile lies in a target folder")?;
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo
        .args(["build", "--quiet", "--package", "carrel", "--target-dir"])
        .arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    ensure!(cargo.status()?.success(), "carrel could not be built");
    Ok(profile.join("carrel"))
}

/// Says that a test is skipped because this machine lacks `what` (`oci`, say).
///
/// # Errors
/// When `CARREL_REQUIRE`, a list with commas, names it: then its lack is a failure.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests are told by variables what must be there, and say what is not"
)]
pub fn skip(test: &str, what: &str, reason: &str) -> anyhow::Result<()> {
    let required = std::env::var("CARREL_REQUIRE").unwrap_or_default();
    ensure!(
        !required.split(',').any(|word| word.trim() == what),
        "{what} is required and absent: {reason}"
    );
    println!("SKIP {test}: {reason}");
    Ok(())
}
