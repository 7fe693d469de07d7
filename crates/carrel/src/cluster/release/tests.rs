use serde_json::{Value, json};

use super::super::script::{cluster, forbidden, list, pod, refusal};
use super::*;
use crate::exit::kind_of;

const PODS: &str = "/api/v1/namespaces/school/pods?";
const ALL_PODS: &str = "/api/v1/pods?";
const SECRET: &str = "/api/v1/namespaces/school/secrets/their-keys";
const FORWARD: &str = "/api/v1/namespaces/school/pods/g-2/portforward";

/// Why the release cannot be reached, and as what kind of failure.
async fn why(answers: Vec<(&'static str, &'static str, u16, Value)>) -> (Kind, String) {
    let (cluster, _) = cluster(answers);
    let error = cluster.gateway().await.expect_err("nothing is behind it");
    (kind_of(&error), error.to_string())
}

fn both() -> Value {
    list(&[
        pod("blue", "gateway", "g-1", false),
        pod("blue", "router", "r-1", true),
        pod("blue", "gateway", "g-2", true),
    ])
}

#[tokio::test]
async fn an_empty_namespace_is_named_and_where_the_release_is_instead() {
    let nothing = ("GET", PODS, 200, list(&[]));
    let mut far = pod("blue", "gateway", "g", true);
    far["metadata"]["namespace"] = json!("lessons");
    let there = ("GET", ALL_PODS, 200, list(&[far]));
    let (kind, message) = why(vec![nothing.clone(), there]).await;
    assert_eq!(kind, Kind::NotFound);
    assert!(
        message.contains("namespace 'school' of context 'far'")
            && message.ends_with("--namespace (there is one in lessons)"),
        "{message}"
    );
    let hidden = ("GET", ALL_PODS, 403, forbidden());
    let (kind, message) = why(vec![nothing, hidden]).await;
    assert_eq!(kind, Kind::NotFound);
    assert!(message.ends_with("by --namespace"), "{message}");
}

#[tokio::test]
async fn the_right_that_is_missing_is_named() {
    let pods = ("GET", PODS, 200, both());
    let token = json!({"metadata": {"name": "their-keys"}, "data": {"adminToken": "c2VjcmV0Cg=="}});
    let secret = ("GET", SECRET, 200, token);
    let other = r#"pods "g-2" is forbidden: User "eve" cannot create resource "pods/portforward""#;
    for (answers, right) in [
        (vec![("GET", PODS, 403, forbidden())], "list pods"),
        (
            vec![pods.clone(), ("GET", SECRET, 403, forbidden())],
            "get secrets",
        ),
        (
            vec![
                pods.clone(),
                secret.clone(),
                ("GET", FORWARD, 403, forbidden()),
            ],
            "get pods/portforward",
        ),
        // Newer ones want another right for the same call, and say so.
        (
            vec![pods, secret, ("GET", FORWARD, 403, refusal(403, other))],
            "create pods/portforward",
        ),
    ] {
        let (kind, message) = why(answers).await;
        assert_eq!(kind, Kind::NotAllowed, "{message}");
        let next = format!("kubectl --context far -n school auth can-i {right}");
        assert!(
            message.contains(&format!("may not {right} in namespace 'school'"))
                && message.contains(&next),
            "{message}"
        );
    }
}

#[tokio::test]
async fn who_is_not_known_is_told_to_log_in() {
    let (kind, message) = why(vec![("GET", PODS, 401, refusal(401, "Unauthorized"))]).await;
    assert_eq!(kind, Kind::NotAllowed);
    assert!(message.contains("log in anew"), "{message}");
}

#[tokio::test]
async fn a_ready_gateway_is_asked_with_the_token_of_its_own_secret() {
    let token = json!({"metadata": {"name": "their-keys"}, "data": {"adminToken": "c2VjcmV0Cg=="}});
    let (cluster, asked) = cluster(vec![
        ("GET", PODS, 200, both()),
        ("GET", SECRET, 200, token),
        ("GET", FORWARD, 403, forbidden()),
    ]);
    let pods = cluster.pods().await.expect("pods");
    let chosen = choose(&cluster, &pods, GATEWAY).expect("one is ready");
    assert_eq!(chosen.name_any(), "g-2");
    assert_eq!(cluster.token(chosen).await.expect("a token"), "secret");
    assert!(cluster.gateway().await.is_err());
    let asked = asked.of("GET /api/v1/namespaces/school/pods/g-2/portforward");
    assert!(asked[0].0.contains("ports=8081"), "{asked:?}");
}

#[tokio::test]
async fn what_is_not_ready_and_what_is_ambiguous_is_said() {
    let (cluster, _) = cluster(vec![]);
    let pods = |all: &[Value]| -> Vec<Pod> {
        all.iter()
            .map(|one| serde_json::from_value(one.clone()).expect("a pod"))
            .collect()
    };
    let asleep = pods(&[pod("blue", "gateway", "g-1", false)]);
    let failure = choose(&cluster, &asleep, GATEWAY).expect_err("none is ready");
    assert_eq!(failure.kind, Kind::Away);
    assert!(
        failure
            .message
            .starts_with("no gateway of release 'blue' is ready: kubectl"),
        "{failure}"
    );
    let two = pods(&[
        pod("blue", "gateway", "g-1", true),
        pod("red", "gateway", "g-2", true),
    ]);
    let failure = choose(&cluster, &two, GATEWAY).expect_err("which?");
    assert_eq!(failure.kind, Kind::Usage);
    assert!(failure.message.contains("(blue, red)"), "{failure}");
    let mut ends = pods(&[pod("blue", "gateway", "g-1", true)]);
    ends[0].metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
    assert!(
        choose(&cluster, &ends, GATEWAY).is_err(),
        "it is going away"
    );
}
