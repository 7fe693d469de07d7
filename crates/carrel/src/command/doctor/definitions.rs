//! Whether a cluster has our definitions, and whether they are this program's.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::bad;
use crate::cluster::{Cluster, Right, failure};
use crate::exit::Kind;
use crate::up::Found;

const GET: Right = Right {
    verb: "get",
    resource: "customresourcedefinitions.apiextensions.k8s.io",
};
/// What brings them.
const APPLY: &str = "carrel crd | kubectl apply --server-side -f -";

/// What a cluster has of them.
enum There {
    None,
    Ours,
    /// By name.
    Others(Vec<String>),
}

/// A finding: where something runs they must be there.
pub(super) async fn installed(cluster: &Cluster) -> Found {
    match compare(cluster).await {
        Ok(There::Ours) => Found::Good("are this program's".to_owned()),
        Ok(There::None) => bad("LearnerClass and Learner are not defined", APPLY),
        Ok(There::Others(names)) => bad(
            format!(
                "{} differ from those of this program ({}): 'helm upgrade' brings the chart's",
                names.join(" and "),
                env!("CARGO_PKG_VERSION")
            ),
            APPLY,
        ),
        Err(found) => found,
    }
}

/// A finding: before an installation they may be there.
pub(super) async fn before(cluster: &Cluster) -> Found {
    match compare(cluster).await {
        Ok(There::None) => Found::Good("none yet; the chart brings them".to_owned()),
        Ok(There::Ours) => Found::Good("are there, and this program's".to_owned()),
        Ok(There::Others(names)) => Found::Notice(format!(
            "{} are there, of another version: the chart replaces them for all releases of the cluster",
            names.join(" and ")
        )),
        Err(found) => found,
    }
}

async fn compare(cluster: &Cluster) -> Result<There, Found> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let (mut there, mut others) = (0, Vec::new());
    for ours in carrel_crd::definitions() {
        let name = ours.name_any();
        match api.get_opt(&name).await {
            Ok(None) => {}
            Ok(Some(found)) => {
                there += 1;
                if !is_ours(&found, &ours) {
                    others.push(name);
                }
            }
            Err(error) => {
                let failure = failure(cluster, GET, &error);
                return Err(match failure.kind {
                    Kind::NotAllowed => Found::Notice(format!("are not looked at: {failure}")),
                    _ => bad(failure, cluster.kubectl("get crd")),
                });
            }
        }
    }
    Ok(match there {
        0 => There::None,
        1 if others.is_empty() => There::Others(vec!["one is missing, and they".to_owned()]),
        _ if others.is_empty() => There::Ours,
        _ => There::Others(others),
    })
}

fn is_ours(found: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> bool {
    let spec = |definition: &CustomResourceDefinition| {
        serde_json::to_value(&definition.spec.versions).unwrap_or_default()
    };
    holds(&spec(found), &spec(ours))
}

/// Whether all that we say stands there; an API server adds defaults, and leaves out what is empty.
fn holds(found: &Value, ours: &Value) -> bool {
    match (found, ours) {
        (Value::Object(found), Value::Object(ours)) => ours
            .iter()
            .all(|(key, ours)| holds(found.get(key).unwrap_or(&Value::Null), ours)),
        (Value::Array(found), Value::Array(ours)) if found.len() == ours.len() => found
            .iter()
            .zip(ours)
            .all(|(found, ours)| holds(found, ours)),
        // 1 and 1.0 are the same bound.
        (Value::Number(found), Value::Number(ours)) => found.as_f64() == ours.as_f64(),
        (Value::Null, ours) => match ours {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(true) | Value::Number(_) => false,
        },
        (found, ours) => found == ours,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::script::{cluster, forbidden};

    const CLASS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/learnerclasses";
    const LEARNER: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/learners";

    #[tokio::test]
    async fn definitions_of_another_version_are_named() {
        let [class, learner] = carrel_crd::definitions().map(|one| json!(one));
        let mut old = learner.clone();
        old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["className"]["maxLength"] = json!(12);
        let answers = |second: Value| {
            vec![
                ("GET", CLASS, 200, class.clone()),
                ("GET", LEARNER, 200, second),
            ]
        };
        let (cluster_, _) = cluster(answers(learner));
        assert!(matches!(installed(&cluster_).await, Found::Good(_)));
        let (cluster_, _) = cluster(answers(old));
        let Found::Bad { what, next } = installed(&cluster_).await else {
            unreachable!("they differ");
        };
        assert!(what.starts_with("learners.carrel.dev differ"), "{what}");
        assert!(next.starts_with("carrel crd | kubectl apply"), "{next}");
        assert!(matches!(before(&cluster_).await, Found::Notice(_)));
        let (cluster_, _) = cluster(vec![]);
        assert!(matches!(installed(&cluster_).await, Found::Bad { .. }));
        assert!(matches!(before(&cluster_).await, Found::Good(_)));
        let (cluster_, _) = cluster(vec![("GET", CLASS, 403, forbidden())]);
        assert!(matches!(installed(&cluster_).await, Found::Notice(_)));
    }

    #[test]
    fn what_an_api_server_adds_and_leaves_out_is_no_difference() {
        let ours = json!({"a": {"minimum": 1.0, "list": [], "nullable": false}, "b": [{"c": "d"}]});
        let found = json!({"a": {"minimum": 1, "more": 2}, "b": [{"c": "d", "e": 3}]});
        assert!(holds(&found, &ours));
        for other in [
            json!({"a": {"minimum": 2}, "b": [{"c": "d"}]}),
            json!({"a": {"minimum": 1}, "b": []}),
            json!({"a": {"minimum": 1}, "b": [{"c": ""}]}),
        ] {
            assert!(!holds(&other, &ours), "{other}");
        }
    }
}
