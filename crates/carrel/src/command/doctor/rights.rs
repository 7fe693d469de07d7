//! What the kubeconfig's user may do of all that the chart's installation does.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::bad;
use crate::cluster::Cluster;
use crate::up::Found;

/// What the chart makes in no namespace.
const OF_CLUSTER: [(&str, &str); 5] = [
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("scheduling.k8s.io", "priorityclasses"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
];
/// What it makes in its own namespace, helm's records among it.
const OF_RELEASE: [(&str, &str); 11] = [
    ("", "configmaps"),
    ("", "pods"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "deployments"),
    ("batch", "jobs"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];
/// What it makes where learners' pods are.
const OF_LEARNERS: [(&str, &str); 3] = [
    ("networking.k8s.io", "networkpolicies"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// Asks for each of them.
pub(super) async fn of_installer(cluster: &Cluster, learner_namespaces: &[String]) -> Found {
    let mut missing = Vec::new();
    let places = [(None, OF_CLUSTER.as_slice())]
        .into_iter()
        .chain([(Some(cluster.namespace.as_str()), OF_RELEASE.as_slice())])
        .chain(
            learner_namespaces
                .iter()
                .map(|name| (Some(name.as_str()), OF_LEARNERS.as_slice())),
        );
    let mut count = 0;
    for (namespace, resources) in places {
        for (group, resource) in resources {
            count += 1;
            match may(cluster, namespace, group, resource).await {
                Ok(true) => {}
                Ok(false) => missing.push((namespace, named(group, resource))),
                Err(error) => {
                    let next = cluster.kubectl("auth can-i --list");
                    return bad(format!("cannot be asked for: {error}"), next);
                }
            }
        }
    }
    let Some((namespace, first)) = missing.first() else {
        return Found::Good(format!(
            "the user may make all {count} kinds of things of the chart"
        ));
    };
    let said: Vec<_> = missing
        .iter()
        .map(|(namespace, resource)| match namespace {
            Some(namespace) => format!("{resource} in {namespace}"),
            None => resource.clone(),
        })
        .collect();
    let place = namespace
        .map(|name| format!(" -n {name}"))
        .unwrap_or_default();
    bad(
        format!("the user may not create {}", said.join(", ")),
        format!(
            "{}{place}",
            cluster.plain_kubectl(&format!("auth can-i create {first}"))
        ),
    )
}

fn named(group: &str, resource: &str) -> String {
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

pub(super) async fn may(
    cluster: &Cluster,
    namespace: Option<&str>,
    group: &str,
    resource: &str,
) -> Result<bool, kube::Error> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: namespace.map(str::to_owned),
                verb: Some("create".to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::script::{Asked, cluster};

    const REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

    async fn asked(allowed: bool) -> (Found, Asked) {
        let answer = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {}, "status": {"allowed": allowed}});
        let (cluster, asked) = cluster(vec![("POST", REVIEW, 201, answer)]);
        let found = of_installer(&cluster, &["pods-0".to_owned()]).await;
        (found, asked)
    }

    #[tokio::test]
    async fn each_kind_of_the_chart_is_asked_for_where_it_is_made() {
        let (found, asked) = asked(true).await;
        assert!(matches!(found, Found::Good(what) if what.contains("all 19 kinds")));
        let asked = asked.of("POST");
        let is_asked = |namespace: serde_json::Value, resource: &str| {
            asked.iter().any(|(_, body)| {
                let of = &body["spec"]["resourceAttributes"];
                of["namespace"] == namespace && of["resource"] == resource && of["verb"] == "create"
            })
        };
        assert!(is_asked(json!("pods-0"), "roles"));
        assert!(is_asked(json!("school"), "deployments"));
        assert!(is_asked(
            serde_json::Value::Null,
            "customresourcedefinitions"
        ));
        assert!(!is_asked(json!("pods-0"), "deployments"));
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_its_place() {
        let (found, _) = asked(false).await;
        let Found::Bad { what, next } = found else {
            unreachable!("nothing is allowed");
        };
        assert!(what.contains("deployments.apps in school"), "{what}");
        assert!(
            what.contains("roles.rbac.authorization.k8s.io in pods-0"),
            "{what}"
        );
        assert_eq!(next, "kubectl --context far auth can-i create namespaces");
    }
}
