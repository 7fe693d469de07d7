//! `cargo xtask test alerts`: Prometheus' own tool reads the rules and what the dashboard asks, and plays each alert. A tier of its own: building the tool takes about
//! ten minutes and three gigabytes of modules. What can be compared without it is compared with every run, here in `tests`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use carrel_cluster_tools::PROMETHEUS;
use serde_json::{Value, json};

use super::report::Counts;
use super::{cluster, needs};
use crate::cargo;

const DASHBOARD: &str = "deploy/dashboards/carrel.json";
const RULES: &str = "deploy/rules/alerts.yaml";
/// What makes each alert fire, and what must not.
const PLAYED: &str = "deploy/alerts_test.yaml";
/// What a call of the tool may take, in seconds.
const BOUND: &str = "120";

/// Runs the tier; whether all passed.
pub(super) fn run() -> anyhow::Result<bool> {
    let promtool = promtool()?;
    let mut total = Counts::default();
    let target = cargo::root().join("target");
    fs::create_dir_all(&target)?;
    let shown = target.join("dashboard-rules.json");
    fs::write(&shown, dashboard_as_rules()?.to_string())?;
    let shown = shown.display().to_string();
    for words in [
        ["check", "rules", RULES],
        ["test", "rules", PLAYED],
        ["check", "rules", &shown],
    ] {
        println!("== promtool {}", words.join(" "));
        let status = Command::new("timeout")
            .arg(BOUND)
            .arg(&promtool)
            .args(words)
            .current_dir(cargo::root())
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("starting {}", promtool.display()))?;
        total.count(status.success());
    }
    println!("total: {total}");
    Ok(total.failed == 0)
}

/// What the dashboard asks, as rules that can be read: with its variables as Grafana fills them in.
fn dashboard_as_rules() -> anyhow::Result<Value> {
    let text = fs::read_to_string(cargo::root().join(DASHBOARD))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let rules = targets.enumerate().map(|(number, target)| {
        let asked = target["expr"].as_str().unwrap_or_default();
        let asked = asked
            .replace("$__rate_interval", "5m")
            .replace("$namespace", "school");
        json!({"record": format!("dashboard:{number}"), "expr": asked})
    });
    let rules: Vec<Value> = rules.collect();
    ensure!(!rules.is_empty(), "{DASHBOARD} asks nothing");
    Ok(json!({"groups": [{"name": "dashboard", "rules": rules}]}))
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
