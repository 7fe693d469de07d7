//! `cargo xtask lint`: formatting, clippy with warnings as errors, and the architecture. All three are run even if
//! the first fails, so that one run says everything.

use std::process::{Command, Stdio};

use anyhow::Context;

use crate::{arch, cargo};

pub(crate) fn run() -> anyhow::Result<bool> {
    let formatted = check("fmt", "formatting", &["--all", "--", "--check"])?;
    let clippy = [
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ];
    let clean = check("clippy", "clippy, warnings are errors", &clippy)?;
    let arranged = arch::run()?;
    for (name, passed) in [
        ("formatting", formatted),
        ("clippy", clean),
        ("arch", arranged),
    ] {
        println!("{name}: {}", if passed { "passed" } else { "FAILED" });
    }
    Ok(formatted && clean && arranged)
}

fn check(tool: &str, purpose: &str, arguments: &[&str]) -> anyhow::Result<bool> {
    println!("== {purpose}");
    let status = with_tool(tool)
        .args(arguments)
        .status()
        .with_context(|| format!("starting cargo {tool}"))?;
    Ok(status.success())
}

/// A call of a cargo tool: of the pinned toolchain, or, where that was installed without it, of `stable`.
fn with_tool(tool: &str) -> Command {
    let there = cargo::cargo()
        .args([tool, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        let mut command = cargo::cargo();
        command.arg(tool);
        return command;
    }
    println!("the pinned toolchain has no {tool}: taking stable's");
    let mut command = Command::new("rustup");
    command
        .args(["run", "stable", "cargo", tool])
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(cargo::root())
        .stdin(Stdio::null());
    cargo::share_target(&mut command);
    command
}
