//! `cargo xtask manifests [--check]`: what is made from the chart and from the definitions of resources, written, or compared with
//! what is there: the chart's copies of the definitions, the plain manifests, and the table of values in the chart's README.

pub(crate) mod helm;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cargo;

const USAGE: &str = "usage: cargo xtask manifests [--check]";
/// Files by their paths, counted from the workspace's root.
type Files = BTreeMap<PathBuf, String>;

/// The definitions of Carrel's resources, as `carrel crd` prints them.
const DEFINITIONS: &str = "manifests/crds";
const CHART: &str = "helm/carrel";
/// What the chart has copies of, since helm reads nothing outside of it: the folder, that in the chart, and how files end.
const COPIED: [(&str, &str, &str); 3] = [
    (DEFINITIONS, "files/crds", "yaml"),
    ("deploy/rules", "files/rules", "yaml"),
    ("deploy/dashboards", "files/dashboards", "json"),
];
const BEGIN: &str = "<!-- values: made by cargo xtask manifests -->\n";
const END: &str = "<!-- end of values -->\n";

pub(crate) fn run() -> anyhow::Result<bool> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let is_check = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => bail!(USAGE),
    };
    if !is_check {
        // The chart has them before it is rendered.
        write(&copies()?)?;
        write(&rendered()?)?;
        return Ok(true);
    }
    let stale = stale()?;
    for path in &stale {
        println!(
            "{} is not what it is made from: run 'cargo xtask manifests'",
            path.display()
        );
    }
    Ok(stale.is_empty())
}

/// The files that differ from what they are made from.
fn stale() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = copies()?;
    files.extend(rendered()?);
    let root = cargo::root();
    let mut stale: Vec<PathBuf> = Vec::new();
    for (path, text) in &files {
        if fs::read_to_string(root.join(path)).ok().as_ref() != Some(text) {
            stale.push(path.clone());
        }
    }
    // What is gone goes from the chart, too.
    for (_, folder, ending) in COPIED {
        let there = listed(&Path::new(CHART).join(folder), ending)?;
        stale.extend(there.into_iter().filter(|path| !files.contains_key(path)));
    }
    Ok(stale)
}

/// The chart's copies.
fn copies() -> anyhow::Result<Files> {
    let mut files = Files::new();
    for (from, to, ending) in COPIED {
        for path in listed(Path::new(from), ending)? {
            let name = path.file_name().context("a listed file has a name")?;
            if name != "kustomization.yaml" {
                files.insert(Path::new(CHART).join(to).join(name), read(&path)?);
            }
        }
    }
    Ok(files)
}

/// Flags for a cluster that has the definitions that others may lack.
pub(crate) const FOREIGN: [&str; 4] = [
    "--api-versions",
    "gateway.networking.k8s.io/v1",
    "--api-versions",
    "monitoring.coreos.com/v1",
];

/// The files of values, one for each kind of installation.
pub(crate) fn value_files() -> anyhow::Result<Vec<String>> {
    let files = listed(Path::new("helm/carrel/ci"), "yaml")?;
    let files = files.iter().map(|path| path.display().to_string());
    Ok(files.collect())
}

/// The chart rendered with a file of values.
pub(crate) fn render(values: &str, more: &[&str]) -> anyhow::Result<String> {
    helm::template(&helm::Template {
        release: "carrel",
        namespace: "school",
        values: Some(values),
        more,
    })
}

/// What helm and the values give.
fn rendered() -> anyhow::Result<Files> {
    let plain = helm::Template {
        release: "carrel",
        namespace: "carrel",
        values: Some("manifests/values.yaml"),
        more: &["--skip-tests", "--set", "crds.enabled=false"],
    };
    let readme = Path::new(CHART).join("README.md");
    let table = values::table(&read(&Path::new(CHART).join("values.yaml"))?);
    let text = read(&readme)?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("README.md without a place for values")?;
    let (_, after) = rest
        .split_once(END)
        .context("README.md without an end of values")?;
    Ok(Files::from([
        (
            "manifests/base/carrel.yaml".into(),
            without_helm(&helm::template(&plain)?),
        ),
        (readme, format!("{before}{BEGIN}{table}{END}{after}")),
    ]))
}

/// Who applies it is not helm.
fn without_helm(text: &str) -> String {
    let ours = |line: &&str| {
        let line = line.trim_start();
        let helms = [
            "# Source:",
            "helm.sh/chart:",
            "app.kubernetes.io/managed-by:",
        ];
        !helms.iter().any(|word| line.starts_with(word))
    };
    let mut lines: Vec<&str> = text.lines().filter(ours).collect();
    lines.insert(
        0,
        "# Made from helm/carrel and manifests/values.yaml by 'cargo xtask manifests'.",
    );
    lines.join("\n") + "\n"
}

fn write(files: &Files) -> anyhow::Result<()> {
    for (path, text) in files {
        let whole = cargo::root().join(path);
        if let Some(folder) = whole.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&whole, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(cargo::root().join(path))
        .with_context(|| format!("reading {}", path.display()))
}

/// The files of a folder that end so, in order; none where there is no folder.
fn listed(folder: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(cargo::root().join(folder)) else {
        return Ok(found);
    };
    for entry in entries {
        let path = folder.join(entry?.file_name());
        if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod score;
#[cfg(test)]
mod tests;
