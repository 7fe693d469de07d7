//! What the chart's accounts may do, by the word of the API server: what they need, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_tests::cluster::school::{CONTROLLER, LEARNER_NAMESPACES, NAMESPACE};
use carrel_tests::eventually;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::installed;

const GATEWAY: &str = "carrel-gateway";
const LEARNERS: &str = LEARNER_NAMESPACES[0];
/// All of them.
const EVERYWHERE: &str = "";
/// What was made counts by then.
const COUNTS_WITHIN: Duration = Duration::from_mins(1);

/// All accounts of the chart, and those that namespaces have anyway.
const ACCOUNTS: [(&str, &str); 7] = [
    (NAMESPACE, GATEWAY),
    (NAMESPACE, CONTROLLER),
    (NAMESPACE, "carrel-router"),
    (NAMESPACE, "carrel-vault"),
    (NAMESPACE, "default"),
    (LEARNER_NAMESPACES[0], "default"),
    (LEARNER_NAMESPACES[1], "default"),
];

/// Who may do what where: all that anybody may.
const ALLOWED: [(&str, &str, &str); 9] = [
    (
        GATEWAY,
        NAMESPACE,
        "get,list,watch,create,patch,delete carrel.dev/learners",
    ),
    (GATEWAY, NAMESPACE, "list,watch carrel.dev/learnerclasses"),
    (CONTROLLER, NAMESPACE, "get,list,watch carrel.dev/learners"),
    (
        CONTROLLER,
        NAMESPACE,
        "list,watch carrel.dev/learnerclasses",
    ),
    (CONTROLLER, NAMESPACE, "update carrel.dev/learners/status"),
    (CONTROLLER, NAMESPACE, "create coordination.k8s.io/leases"),
    (
        CONTROLLER,
        NAMESPACE,
        "get,update coordination.k8s.io/leases=carrel-controller",
    ),
    (CONTROLLER, NAMESPACE, "create,patch events.k8s.io/events"),
    (
        CONTROLLER,
        "learners",
        "get,list,watch,create,patch,delete /pods",
    ),
];

/// What must be refused above all.
const REFUSED: [(&str, &str, &str); 34] = [
    (GATEWAY, NAMESPACE, "get,list /secrets"),
    (GATEWAY, NAMESPACE, "create,get /pods"),
    (GATEWAY, NAMESPACE, "update carrel.dev/learners"),
    (
        GATEWAY,
        NAMESPACE,
        "update,patch carrel.dev/learners/status",
    ),
    (
        GATEWAY,
        NAMESPACE,
        "create,update,patch,delete carrel.dev/learnerclasses",
    ),
    (GATEWAY, NAMESPACE, "deletecollection carrel.dev/learners"),
    (GATEWAY, NAMESPACE, "create /events"),
    (GATEWAY, LEARNERS, "get,list,create,delete /pods"),
    (GATEWAY, LEARNERS, "create /pods/exec"),
    (GATEWAY, EVERYWHERE, "list carrel.dev/learners"),
    (GATEWAY, "default", "get carrel.dev/learners"),
    (CONTROLLER, NAMESPACE, "get,list /secrets"),
    (CONTROLLER, NAMESPACE, "get /configmaps"),
    (CONTROLLER, NAMESPACE, "create,list /pods"),
    (
        CONTROLLER,
        NAMESPACE,
        "create,update,patch,delete carrel.dev/learners",
    ),
    (
        CONTROLLER,
        NAMESPACE,
        "create,update,patch,delete carrel.dev/learnerclasses",
    ),
    (
        CONTROLLER,
        NAMESPACE,
        "get,update coordination.k8s.io/leases=another",
    ),
    (CONTROLLER, NAMESPACE, "create /serviceaccounts/token"),
    (
        CONTROLLER,
        NAMESPACE,
        "create rbac.authorization.k8s.io/rolebindings",
    ),
    (CONTROLLER, LEARNERS, "get,list /secrets"),
    (CONTROLLER, LEARNERS, "create /pods/exec"),
    (CONTROLLER, LEARNERS, "patch /pods/ephemeralcontainers"),
    (CONTROLLER, LEARNERS, "deletecollection /pods"),
    (
        CONTROLLER,
        LEARNERS,
        "delete networking.k8s.io/networkpolicies",
    ),
    (CONTROLLER, EVERYWHERE, "list,create /pods"),
    (CONTROLLER, EVERYWHERE, "list /nodes"),
    (CONTROLLER, EVERYWHERE, "create,delete /namespaces"),
    (CONTROLLER, EVERYWHERE, "impersonate /users"),
    (CONTROLLER, "kube-system", "create,list /pods"),
    ("carrel-router", NAMESPACE, "get,list carrel.dev/learners"),
    ("carrel-router", NAMESPACE, "get /secrets"),
    ("carrel-vault", NAMESPACE, "get,list carrel.dev/learners"),
    ("carrel-vault", NAMESPACE, "get /secrets"),
    ("default", LEARNERS, "get,list,create /pods"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_account_may_do_what_it_needs_and_nothing_else() -> anyhow::Result<()> {
    let test = "each_account_may_do_what_it_needs_and_nothing_else";
    let Some(chart) = installed(test, 0, &[]).await? else {
        return Ok(());
    };
    let plane = &chart.plane;
    // Of a namespace that the chart knows nothing of: what everybody may.
    let nobody = plane
        .service_account("default", "default")?
        .client()
        .await?;
    let everybodys = rules(&nobody, "default").await?;
    for (home, account) in ACCOUNTS {
        let client = plane.service_account(home, account)?.client().await?;
        for namespace in [
            NAMESPACE,
            LEARNERS,
            LEARNER_NAMESPACES[1],
            "default",
            "kube-system",
        ] {
            let place = if LEARNER_NAMESPACES.contains(&namespace) {
                "learners"
            } else {
                namespace
            };
            let allowed = ALLOWED
                .iter()
                .filter(|(who, at, _)| *who == account && *at == place);
            let mut wanted = everybodys.clone();
            wanted.extend(allowed.flat_map(|(_, _, what)| expanded(what)));
            let found = eventually(
                "the rules are those of the chart",
                COUNTS_WITHIN,
                || async {
                    let found = rules(&client, namespace).await?;
                    Ok((found.is_superset(&wanted)).then_some(found))
                },
            );
            assert_eq!(found.await?, wanted, "{account} of {home} in {namespace}");
        }
        let refused = REFUSED
            .iter()
            .filter(|(who, at, _)| *who == account && (account != "default" || *at == home));
        for (_, namespace, what) in refused {
            for right in expanded(what) {
                let answer = may(&client, namespace, &right).await?;
                assert!(!answer, "{account} of {home} may {right} in '{namespace}'");
            }
        }
        let allowed = ALLOWED.iter().filter(|(who, _, _)| *who == account);
        for (_, place, what) in allowed {
            let namespace = if *place == "learners" {
                LEARNERS
            } else {
                place
            };
            for right in expanded(what) {
                let answer = may(&client, namespace, &right).await?;
                assert!(answer, "{account} may not {right} in '{namespace}'");
            }
        }
    }
    Ok(())
}

/// Each verb of its own: `get GROUP/RESOURCE`, with `=NAME` where it is for one object.
fn expanded(what: &str) -> BTreeSet<String> {
    let (verbs, resource) = what.split_once(' ').unwrap_or_default();
    let verbs = verbs.split(',');
    verbs.map(|verb| format!("{verb} {resource}")).collect()
}

/// All that a namespace's rules let somebody do.
async fn rules(client: &Client, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let review = serde_json::from_value(json!({"spec": {"namespace": namespace}}))?;
    let review = reviews.create(&PostParams::default(), &review).await?;
    let mut found = BTreeSet::new();
    for rule in review.status.unwrap_or_default().resource_rules {
        let names = rule.resource_names.unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!("={name}")).collect();
        let names = if names.is_empty() {
            vec![String::new()]
        } else {
            names
        };
        for resource in rule.resources.unwrap_or_default() {
            for group in rule.api_groups.iter().flatten() {
                for name in &names {
                    let whole = format!("{group}/{resource}{name}");
                    found.extend(rule.verbs.iter().map(|verb| format!("{verb} {whole}")));
                }
            }
        }
    }
    Ok(found)
}

/// Whether somebody may do one thing.
async fn may(client: &Client, namespace: &str, right: &str) -> anyhow::Result<bool> {
    let (verb, what) = right.split_once(' ').unwrap_or_default();
    let (what, name) = what.split_once('=').unwrap_or((what, ""));
    let (group, resource) = what.split_once('/').unwrap_or_default();
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = json!({
        "namespace": namespace, "verb": verb, "group": group, "name": name,
        "resource": resource, "subresource": subresource,
    });
    let review = serde_json::from_value(json!({"spec": {"resourceAttributes": attributes}}))?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.unwrap_or_default().allowed)
}
