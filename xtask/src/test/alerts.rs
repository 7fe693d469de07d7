//! `cargo xtask test alerts`: Prometheus' own tool reads the rules and plays each alert. A tier of its own: building the tool takes about
//! ten minutes and three gigabytes of modules. What can be compared without it is compared with every run, here in `tests`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use carrel_cluster_tools::PROMETHEUS;

use super::report::Counts;
use super::{cluster, needs};
use crate::cargo;

const RULES: &str = "deploy/rules/alerts.yaml";
/// What makes each alert fire, and what must not.
const PLAYED: &str = "deploy/alerts_test.yaml";
/// What a call of the tool may take, in seconds.
const BOUND: &str = "120";

/// Runs the tier; whether all passed.
pub(super) fn run() -> anyhow::Result<bool> {
    let promtool = promtool()?;
    let mut total = Counts::default();
    for words in [["check", "rules", RULES], ["test", "rules", PLAYED]] {
        println!("== promtool {}", words.join(" "));
        let status = Command::new("timeout")
            .arg(BOUND)
            .arg(&promtool)
            .args(words)
            .current_dir(cargo::root())
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("starting {}", promtool.display()))?;
        if status.success() {
            total.passed += 1;
        } else {
            total.failed += 1;
        }
    }
    println!("total: {total}");
    Ok(total.failed == 0)
}

/// The one that `CARREL_PROMTOOL` names, else that of the path, else the pinned one, which is built when it is not there.
fn promtool() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("CARREL_PROMTOOL").filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    if needs::is_there("promtool") {
        return Ok("promtool".into());
    }
    println!("== promtool, of the pinned version");
    cluster::build(&PROMETHEUS, needs::is_there("go"))?;
    let folder = PROMETHEUS
        .folder()
        .context("no HOME, so no cache to build into")?;
    Ok(folder.join("promtool"))
}

#[cfg(test)]
mod tests;
