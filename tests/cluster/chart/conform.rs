//! `kubeconform -strict`: every key of every manifest is one that the API server knows.

use std::path::Path;

use anyhow::Context as _;
use carrel_tests::cluster::school::DEFINITIONS;
use carrel_tests::cluster::{Chart, objects};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::schemas;
use crate::start_chart;

/// What is wrong: the kind of an object, where, and the key.
const WRONG: [(&str, &str, &str); 8] = [
    ("Deployment", "/spec", "replica"),
    (
        "Deployment",
        "/spec/template/spec/containers/0/livenessProbe",
        "period",
    ),
    ("NetworkPolicy", "/spec", "policyType"),
    (
        "ValidatingAdmissionPolicy",
        "/spec/matchConstraints",
        "resources",
    ),
    ("ServiceMonitor", "/spec/endpoints/0", "every"),
    ("PrometheusRule", "/spec/groups/0/rules/0", "expression"),
    ("HTTPRoute", "/spec/rules/0/backendRefs/0", "service"),
    ("LearnerClass", "/spec/idle", "minSecond"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_has_only_keys_that_the_api_server_knows() -> anyhow::Result<()> {
    let test = "every_manifest_has_only_keys_that_the_api_server_knows";
    let Some(chart) = start_chart(test, 0).await? else {
        return Ok(());
    };
    chart.plane.define(Path::new(DEFINITIONS))?;
    let folder = TempDir::with_prefix("carrel-manifests-")?;
    let [right, wrong, known] = ["right", "wrong", "known"].map(|name| folder.path().join(name));
    std::fs::create_dir_all(&right)?;
    std::fs::create_dir_all(&wrong)?;
    let mut all = Vec::new();
    let mut keep = |name: &str, manifests: &str| {
        all.extend(objects(manifests)?);
        anyhow::Ok(std::fs::write(right.join(name), manifests)?)
    };
    for values in Chart::values()? {
        let name = values.file_name().unwrap_or_default().to_string_lossy();
        keep(&name, &chart.render(&values).await?)?;
    }
    for name in ["carrel.yaml", "namespace.yaml"] {
        let base = Path::new(DEFINITIONS).join("../base");
        keep(name, &std::fs::read_to_string(base.join(name))?)?;
    }
    keep("class.json", &class().to_string())?;
    schemas::write(&chart.plane, &all, &known).await?;

    let said = Chart::conform(&known, &right)?;
    let sum = format!("Valid: {}, Invalid: 0, Errors: 0, Skipped: 0", all.len());
    assert!(
        said.status == Some(0) && said.stdout.contains(&sum),
        "{sum}: {said:?}"
    );

    for (number, (kind, place, key)) in WRONG.iter().enumerate() {
        let mut object = all
            .iter()
            .rfind(|object| object["kind"] == *kind && object.pointer(place).is_some())
            .with_context(|| format!("no {kind} has {place}"))?
            .clone();
        if let Some(found) = object.pointer_mut(place) {
            found[*key] = json!(1);
        }
        std::fs::write(wrong.join(format!("{number}.json")), object.to_string())?;
    }
    let said = Chart::conform(&known, &wrong)?;
    let sum = format!("Valid: 0, Invalid: {}, Errors: 0", WRONG.len());
    assert!(
        said.status == Some(1) && said.stdout.contains(&sum),
        "{sum}: {said:?}"
    );
    for (kind, place, key) in WRONG {
        let why = format!("at '{place}': additional properties '{key}' not allowed");
        assert!(said.stdout.contains(&why), "{kind}: {why}: {said:?}");
    }
    Ok(())
}

fn class() -> Value {
    json!({
        "apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerClass", "metadata": {"name": "free"},
        "spec": {"idle": {"minSeconds": 45, "maxSeconds": 450}, "egress": {"allow": ["example.com"]}},
    })
}
