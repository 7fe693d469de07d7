//! What tools that judge manifests say of the chart, and of each thing that they find and we leave, why.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use carrel_cluster_tools::{Group, KUBE_SCORE, KUSTOMIZE};

use crate::{cargo, chart::helm};

/// What a finding says, and why it stays.
const EXPLAINED: [(&str, &str); 6] = [
    (
        "CPU limit is not set",
        "a limit slows an idle machine down; the request is what is shared by",
    ),
    (
        "ImagePullPolicy is not set to Always",
        "an image is named by a digest or by a tag that does not move; nodes that lack the registry start pods all the same",
    ),
    (
        "does not have a matching egress NetworkPolicy",
        "where database, bucket, providers and API server are is the operator's",
    ),
    (
        "does not have a host podAntiAffinity set",
        "topologySpreadConstraints do it, and may be broken on one node",
    ),
    (
        "selector doesn't match any pods",
        "the controller makes them",
    ),
    (
        "Container is missing a readinessProbe",
        "nobody is sent to a pod that comes and goes: the test's, and the one that has images pulled",
    ),
];

/// A tool that the cluster tests built, or one of the path.
fn tool(group: &Group, name: &str) -> Option<PathBuf> {
    let built = group.folder().map(|folder| folder.join(name));
    let program = built
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into());
    let there = Command::new(&program)
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    there
        .is_ok_and(|status| status.success())
        .then_some(program)
}

#[test]
fn kube_score_finds_nothing_that_is_not_explained() {
    const TEST: &str = "kube_score_finds_nothing_that_is_not_explained";
    let Some(program) = tool(&KUBE_SCORE, "kube-score") else {
        println!("SKIP {TEST}: there is no kube-score");
        return;
    };
    let wanted = helm::Template {
        release: "carrel",
        namespace: "school",
        values: Some("helm/carrel/ci/ha-values.yaml"),
        more: &[
            "--api-versions",
            "gateway.networking.k8s.io/v1",
            "--api-versions",
            "monitoring.coreos.com/v1",
        ],
    };
    let folder = cargo::root().join("target");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("scored.yaml");
    std::fs::write(&file, helm::template(&wanted).unwrap()).unwrap();
    let scored = Command::new(program)
        .args(["score", "-o", "ci"])
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = String::from_utf8(scored.stdout).unwrap();
    assert!(said.lines().count() > 100, "{said}");
    let mut used = [false; EXPLAINED.len()];
    for finding in said
        .lines()
        .filter(|line| !line.starts_with("[OK]") && !line.starts_with("[SKIPPED]"))
    {
        let found = EXPLAINED
            .iter()
            .position(|(words, _)| finding.contains(words));
        used[found.expect(finding)] = true;
    }
    assert_eq!(used, [true; EXPLAINED.len()], "an explanation of nothing");
}

#[test]
fn kustomize_builds_the_plain_manifests() {
    const TEST: &str = "kustomize_builds_the_plain_manifests";
    let Some(program) = tool(&KUSTOMIZE, "kustomize") else {
        println!("SKIP {TEST}: there is no kustomize");
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
