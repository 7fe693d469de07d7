//! What tools that judge manifests say of the chart, and of each thing that they find and we leave, why.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use carrel_cluster_tools::{Group, KUBE_SCORE, KUSTOMIZE};

use super::tests::skip;
use super::{FOREIGN, render, value_files};
use crate::cargo;

/// What a finding says, of which kind of installation (empty: of any), and why it stays.
const EXPLAINED: [(&str, &str, &str); 10] = [
    (
        "CPU limit is not set",
        "",
        "a limit slows an idle machine down; the request is what is shared by",
    ),
    (
        "ImagePullPolicy is not set to Always",
        "",
        "an image is named by a digest or by a tag that does not move; nodes that lack the registry start pods all the same",
    ),
    (
        "does not have a matching egress NetworkPolicy",
        "",
        "what comes and goes: migrations run before a release's policies are renewed, and must get out though the last ones are wrong",
    ),
    (
        "does not have a host podAntiAffinity set",
        "",
        "topologySpreadConstraints do it, and may be broken on one node",
    ),
    (
        "selector doesn't match any pods",
        "",
        "the controller makes them",
    ),
    (
        "Container is missing a readinessProbe",
        "",
        "nobody is sent to a pod that comes and goes: the test's, and the one that has images pulled",
    ),
    (
        "Deployment few replicas",
        "minimal",
        "one of each is what it is about",
    ),
    (
        "does not have a matching NetworkPolicy",
        "minimal",
        "the cluster has no implementation of policies, and it is said so after the installation",
    ),
    (
        "running with a low ",
        "openshift",
        "the cluster gives each namespace a user and a group of its own, high ones",
    ),
    (
        "The service is of type NodePort",
        "everything",
        "everything is switched on",
    ),
];

/// A tool that the cluster tests built, or one of the path; says that the test is skipped when there is none.
fn tool(test: &str, group: &Group, name: &str) -> Option<PathBuf> {
    let built = group.folder().map(|folder| folder.join(name));
    let program = built
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into());
    let there = Command::new(&program)
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    skip(test, name);
    None
}

#[test]
fn kube_score_finds_nothing_that_is_not_explained() {
    const TEST: &str = "kube_score_finds_nothing_that_is_not_explained";
    let Some(program) = tool(TEST, &KUBE_SCORE, "kube-score") else {
        return;
    };
    let folder = cargo::root().join("target/scored");
    std::fs::create_dir_all(&folder).unwrap();
    let mut used = [false; EXPLAINED.len()];
    for values in value_files().unwrap() {
        let file = folder.join("rendered.yaml");
        std::fs::write(&file, render(&values, &FOREIGN).unwrap()).unwrap();
        let scored = Command::new(&program)
            .args(["score", "-o", "ci"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(scored.stdout).unwrap();
        assert!(said.lines().count() > 100, "{values}: {said}");
        for finding in said
            .lines()
            .filter(|line| !line.starts_with("[OK]") && !line.starts_with("[SKIPPED]"))
        {
            let found = EXPLAINED
                .iter()
                .position(|(words, kind, _)| finding.contains(words) && values.contains(kind));
            used[found.unwrap_or_else(|| panic!("{values}: {finding}"))] = true;
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(used, [true; EXPLAINED.len()], "an explanation of nothing");
}

#[test]
fn kustomize_builds_the_plain_manifests() {
    const TEST: &str = "kustomize_builds_the_plain_manifests";
    let Some(program) = tool(TEST, &KUSTOMIZE, "kustomize") else {
        return;
    };
    let base = cargo::root().join("manifests/base");
    let built = Command::new(program)
        .arg("build")
        .arg(&base)
        .output()
        .unwrap();
    let text = String::from_utf8(built.stdout).unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    for kind in [
        "Namespace",
        "Deployment",
        "Job",
        "NetworkPolicy",
        "ValidatingAdmissionPolicy",
    ] {
        assert!(text.contains(&format!("\nkind: {kind}\n")), "{kind}");
    }
    assert!(
        !text.to_lowercase().contains("helm"),
        "who applies it is not helm"
    );
}

/// As `manifests/README.md` tells: one database for all, and each variable once, or the API server refuses them.
#[test]
fn kustomize_puts_the_operators_database_and_image_in_place() {
    const TEST: &str = "kustomize_puts_the_operators_database_and_image_in_place";
    let Some(program) = tool(TEST, &KUSTOMIZE, "kustomize") else {
        return;
    };
    let manifests = cargo::root().join("manifests");
    let page = std::fs::read_to_string(manifests.join("README.md")).unwrap();
    let (_, told) = page.split_once("```yaml\n").unwrap();
    let (told, _) = told.split_once("```").unwrap();
    let folder = std::env::temp_dir().join(format!("carrel-kustomize-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("school")).unwrap();
    std::os::unix::fs::symlink(&manifests, folder.join("manifests")).unwrap();
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: carrel}\ndata: {carrel.yaml: ours}\n";
    std::fs::write(folder.join("school/config.yaml"), config).unwrap();
    std::fs::write(folder.join("school/kustomization.yaml"), told).unwrap();
    let built = Command::new(program)
        .args(["build", "--load-restrictor=LoadRestrictionsNone"])
        .arg(folder.join("school"))
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(built.stdout).unwrap();
    let wrong = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{wrong}");
    let count = |words: &str| text.matches(words).count();
    assert_eq!(count("name: CARREL_STORE_URL"), 4);
    assert_eq!(
        count("value: postgres://carrel@db.school.example/carrel\n"),
        4
    );
    assert_eq!(count("  carrel.yaml: ours\n"), 1);
    assert_eq!(count("image: carrel:"), 0, "none is left");
    assert!(count("image: registry.school.example/carrel:0.1.0") >= 5);
}
