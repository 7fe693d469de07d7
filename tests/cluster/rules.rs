//! The definitions on a real API server: what their rules refuse, their bounds, their defaults, by what one can select.

use std::path::Path;

use carrel_core::class::ClassSpec;
use carrel_tests::cluster::school::DEFINITIONS;
use carrel_tests::cluster::{ControlPlane, Operator, Options};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{start, told_by_the_first_page};

/// The cases that the crate of the definitions tries by itself, too.
const CASES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/crd/tests/rules.yaml"
);

fn api(plane: &ControlPlane, kind: &str) -> Api<DynamicObject> {
    let plural = match kind {
        "Learner" => "learners",
        _ => "learnerclasses",
    };
    let kind = GroupVersionKind::gvk("carrel.dev", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    Api::default_namespaced_with(plane.client(), &resource)
}

async fn make(
    api: &Api<DynamicObject>,
    kind: &str,
    name: &str,
    spec: &Value,
) -> kube::Result<DynamicObject> {
    let object = json!({"apiVersion": "carrel.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await
}

/// Changes an object to that state: its spec, and its status where one is given.
async fn change(
    api: &Api<DynamicObject>,
    mut object: DynamicObject,
    state: &Value,
) -> kube::Result<DynamicObject> {
    let (name, params) = (
        object.metadata.name.clone().unwrap_or_default(),
        PostParams::default(),
    );
    object.data["spec"] = state["spec"].clone();
    let mut object = api.replace(&name, &params, &object).await?;
    if state["status"].is_null() {
        return Ok(object);
    }
    object.data["status"] = state["status"].clone();
    api.replace_status(&name, &params, &object).await
}

async fn tried(api: &Api<DynamicObject>, name: &str, case: &Value) -> kube::Result<DynamicObject> {
    let (before, now) = (&case["before"], &case["now"]);
    let kind = case["kind"].as_str().unwrap_or_default();
    if before.is_null() {
        return make(api, kind, name, &now["spec"]).await;
    }
    let made = make(api, kind, name, &before["spec"]).await?;
    let made = change(api, made, before).await?;
    change(api, made, now).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_refuses_what_the_definitions_forbid() -> anyhow::Result<()> {
    let test = "an_api_server_refuses_what_the_definitions_forbid";
    let Some(plane) = start(test, Options::default()).await? else {
        return Ok(());
    };
    plane.define(Path::new(DEFINITIONS))?;
    let (classes, learners) = (api(&plane, "LearnerClass"), api(&plane, "Learner"));
    let cases: Vec<Value> = serde_yaml::from_str(&std::fs::read_to_string(CASES)?)?;
    assert!(!cases.is_empty());
    for (number, case) in cases.iter().enumerate() {
        let api = match case["kind"].as_str() {
            Some("Learner") => &learners,
            _ => &classes,
        };
        let numbered = format!("case-{number}");
        let name = case["name"].as_str().unwrap_or(&numbered);
        let said = tried(api, name, case)
            .await
            .err()
            .map(|error| error.to_string());
        match case["refused"].as_str() {
            Some(refused) => assert!(
                said.as_ref().is_some_and(|said| said.contains(refused)),
                "{case}: {said:?}"
            ),
            None => assert_eq!(said, None, "{case}"),
        }
    }

    // Bounds and words.
    for (kind, spec, field) in [
        (
            "LearnerClass",
            json!({"warmPool": {"size": 2001}}),
            "spec.warmPool.size",
        ),
        (
            "LearnerClass",
            json!({"resources": {"memory": "lots"}}),
            "spec.resources.memory",
        ),
        ("Learner", json!({"className": ""}), "spec.className"),
        ("Learner", json!({"state": "Awake"}), "spec.state"),
        (
            "Learner",
            json!({"restore": {"snapshotId": "last"}}),
            "spec.restore.snapshotId",
        ),
    ] {
        let made = make(&api(&plane, kind), kind, "outside", &spec).await;
        let said = made
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(said.contains(field), "{spec}: {said}");
    }

    // What is left out is as it is on one machine.
    let made = make(&classes, "LearnerClass", "bare", &json!({})).await?;
    let spec: ClassSpec = serde_json::from_value(made.data["spec"].clone())?;
    assert_eq!(spec, ClassSpec::default());
    let made = make(&learners, "Learner", "bare", &json!({})).await?;
    assert_eq!(
        made.data["spec"],
        json!({"className": "default", "state": "Auto"})
    );

    // What the first page tells to apply.
    let operator = Operator::of(&plane)?;
    let told = told_by_the_first_page()?;
    let said = operator.kubectl(&["apply", "-f", "-"], &told)?.well()?;
    assert_eq!(said.matches(" created").count(), 2, "{said}");

    let kept = json!({"className": "paid", "state": "Running"});
    make(&learners, "Learner", "kept", &kept).await?;
    for field in ["spec.className=paid", "spec.state=Running"] {
        let found = learners.list(&ListParams::default().fields(field)).await?;
        let found: Vec<_> = found
            .items
            .iter()
            .filter_map(|one| one.metadata.name.as_deref())
            .collect();
        assert_eq!(found, ["kept"], "{field}");
    }
    Ok(())
}
