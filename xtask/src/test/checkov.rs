//! `cargo xtask test checkov`: checkov judges every kind of installation that the chart renders. A tier of its own: it is a program of Python
//! with a hundred packages, for which the user's cache has an environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use carrel_cluster_tools::cache;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::report::Counts;
use crate::{cargo, chart};

/// All packages, pinned: what `pip freeze` says where checkov was installed alone.
const PACKAGES: &str = "xtask/src/test/checkov/requirements.txt";
/// What a call may take, in seconds.
const BOUND: &str = "900";

/// A check that fails, in which kind of installation and of which objects (a part of its name; empty: of any), and why it stays so.
const EXPLAINED: [(&str, &str, &str, &str); 12] = [
    (
        "CKV_K8S_11",
        "",
        "",
        "CPU limits: one slows an idle machine down; the request is what is shared by",
    ),
    (
        "CKV_K8S_15",
        "",
        "",
        "images that are always pulled: they have a digest or a tag that does not move; nodes that lack the registry start pods all the same",
    ),
    (
        "CKV_K8S_43",
        "",
        "",
        "images without a digest: the operator's is not known to the chart; image.digest names it",
    ),
    (
        "CKV_K8S_38",
        "",
        "Deployment.school.carrel-gateway",
        "an account's token: it wakes learners by the API server",
    ),
    (
        "CKV_K8S_38",
        "",
        "Deployment.school.carrel-controller",
        "an account's token: it makes pods",
    ),
    (
        "CKV_K8S_35",
        "",
        "Deployment.school.carrel-router",
        "secrets in variables: a provider's key is known by its variable's name; no other component has it",
    ),
    (
        "CKV_K8S_8",
        "",
        "Pod.school.carrel-test-",
        "no liveness probe: it comes and goes, within a time",
    ),
    (
        "CKV_K8S_8",
        "",
        "DaemonSet.school.carrel-pre-pull",
        "no liveness probe: it does nothing",
    ),
    (
        "CKV_K8S_9",
        "",
        "Pod.school.carrel-test-",
        "no readiness probe: nobody is sent to it",
    ),
    (
        "CKV_K8S_9",
        "",
        "DaemonSet.school.carrel-pre-pull",
        "no readiness probe: nobody is sent to it",
    ),
    (
        "CKV_K8S_40",
        "openshift",
        "",
        "no high user: the cluster gives each namespace one, a high one",
    ),
    (
        "CKV2_K8S_6",
        "minimal",
        "",
        "no NetworkPolicy: the cluster has no implementation, and it is said so after the installation",
    ),
];

/// Runs the tier; whether all passed.
pub(super) fn run() -> anyhow::Result<bool> {
    let checkov = checkov()?;
    let folder = cargo::root().join("target/checked");
    fs::create_dir_all(&folder)?;
    let mut total = Counts::default();
    let mut used = [false; EXPLAINED.len()];
    for values in chart::value_files()? {
        let file = folder.join("rendered.yaml");
        fs::write(&file, chart::render(&values, &chart::FOREIGN)?)?;
        let findings = findings(&checkov, &file)?;
        let count = findings.len();
        let unexplained: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| {
                let found = EXPLAINED.iter().position(|(check, kind, of, _)| {
                    finding.check == *check && values.contains(kind) && finding.object.contains(of)
                });
                found.inspect(|index| used[*index] = true).is_none()
            })
            .collect();
        println!(
            "{values}: {count} findings, {} unexplained",
            unexplained.len()
        );
        for finding in &unexplained {
            println!("    {} {}: {}", finding.check, finding.says, finding.object);
        }
        total.count(unexplained.is_empty());
    }
    fs::remove_dir_all(&folder)?;
    for ((check, _, of, _), _) in EXPLAINED.iter().zip(used).filter(|(_, used)| !used) {
        println!("{check} is explained of '{of}' and not found");
        total.count(false);
    }
    println!("total: {total}");
    Ok(total.failed == 0)
}

/// A check that failed.
struct Finding {
    check: String,
    says: String,
    object: String,
}

/// What checkov finds in a file of manifests.
fn findings(checkov: &Path, file: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut command = bounded(checkov);
    let words = [
        "--framework",
        "kubernetes",
        "--output",
        "json",
        "--skip-download",
        "--soft-fail",
    ];
    let said = said(command.args(words).arg("--file").arg(file))?;
    let said: Value = serde_json::from_str(&said).context("reading what checkov says")?;
    let passed = said["summary"]["passed"].as_u64().unwrap_or_default();
    ensure!(passed > 500, "checkov has looked at little: {said}");
    let failed = said["results"]["failed_checks"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failed = failed.into_iter().flatten().map(|check| Finding {
        check: text(&check["check_id"]),
        says: text(&check["check_name"]),
        object: text(&check["resource"]),
    });
    Ok(failed.collect())
}

/// The program, in an environment of its own; another list of packages is another one.
fn checkov() -> anyhow::Result<PathBuf> {
    let packages = cargo::root().join(PACKAGES);
    let hash = Sha256::digest(fs::read(&packages)?);
    let name = hash[..8]
        .iter()
        .fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
    let cache = cache().context("no HOME, so no cache to install into")?;
    let environment = cache.join(format!("checkov-{name}"));
    let program = environment.join("bin/checkov");
    let whole = environment.join("whole");
    if !whole.is_file() {
        println!(
            "== checkov, of the pinned version, into {}",
            environment.display()
        );
        fs::create_dir_all(&cache)?;
        said(
            bounded(Path::new("python3"))
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )?;
        let mut pip = bounded(&environment.join("bin/pip"));
        let words = [
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--requirement",
        ];
        said(pip.args(words).arg(&packages))?;
        fs::write(whole, "")?;
    }
    Ok(program)
}

fn bounded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(BOUND).arg(program).stdin(Stdio::null());
    command
}

/// What a command prints.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
