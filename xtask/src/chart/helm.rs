//! How helm is called: the one that `CARREL_HELM` names, else the one that the cluster tests built, else the one of the path.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

use crate::cargo;

/// What charts are rendered for; a helm that is built from its module does not know by itself.
const KUBERNETES: &str = "1.34.4";

/// A rendering of the chart.
pub(crate) struct Template<'a> {
    pub(crate) release: &'a str,
    pub(crate) namespace: &'a str,
    /// A file of values, counted from the workspace's root.
    pub(crate) values: Option<&'a str>,
    /// Flags besides.
    pub(crate) more: &'a [&'a str],
}

/// The program.
pub(crate) fn program() -> PathBuf {
    if let Some(named) = env::var_os("CARREL_HELM").filter(|value| !value.is_empty()) {
        return named.into();
    }
    let built = carrel_cluster_tools::HELM
        .folder()
        .map(|folder| folder.join("helm"));
    built
        .filter(|path| path.is_file())
        .unwrap_or_else(|| "helm".into())
}

/// What helm says to these words.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<Output> {
    let program = program();
    Command::new(&program)
        .args(words)
        .current_dir(cargo::root())
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            format!(
                "starting {}: helm 3 is needed (or CARREL_HELM)",
                program.display()
            )
        })
}

/// The chart rendered.
pub(crate) fn template(wanted: &Template<'_>) -> anyhow::Result<String> {
    let chart = Path::new("helm/carrel").display().to_string();
    let mut words = vec![
        "template",
        wanted.release,
        &chart,
        "--namespace",
        wanted.namespace,
    ];
    words.extend(["--kube-version", KUBERNETES]);
    words.extend(wanted.values.iter().flat_map(|file| ["--values", *file]));
    words.extend(wanted.more);
    let output = run(&words)?;
    if !output.status.success() {
        bail!(
            "helm {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether the chart lints without a warning: else what is wrong.
#[cfg(test)]
pub(crate) fn lint(values: &str) -> anyhow::Result<Option<String>> {
    let words = [
        "lint",
        "--strict",
        "--quiet",
        "helm/carrel",
        "--kube-version",
        KUBERNETES,
        "--values",
        values,
    ];
    let output = run(&words)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((!output.status.success()).then_some(said))
}
