use clap::Parser as _;

use super::*;
use crate::cluster::script::{cluster, forbidden, list, pod, refusal};

const NAMESPACE: &str = "/api/v1/namespaces/lessons";
const NAMESPACES: &str = "/api/v1/namespaces?";
const PODS: &str = "/api/v1/namespaces/school/pods?";
const REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn bad_one(found: Found) -> (String, String) {
    match found {
        Found::Bad { what, next } => (what, next),
        Found::Good(what) | Found::Notice(what) => unreachable!("it is no failure: {what}"),
    }
}

#[tokio::test]
async fn an_api_server_that_is_too_old_is_refused() {
    for (minor, is_good) in [("29", false), ("30", true), ("34+", true)] {
        let answer = json!({
            "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.7"), "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        let (cluster, _) = cluster(vec![("GET", "/version", 200, answer)]);
        let found = version(&cluster).await;
        assert_eq!(matches!(found, Found::Good(_)), is_good, "{minor}");
    }
    let (cluster, _) = cluster(vec![("GET", "/version", 401, refusal(401, "Unauthorized"))]);
    let (what, next) = bad_one(version(&cluster).await);
    assert!(what.contains("log in anew"), "{what}");
    assert_eq!(next, "kubectl --context far -n school version");
}

#[tokio::test]
async fn a_namespace_for_learners_is_free_or_the_releases_own() {
    let owned = |namespace: &str, release: &str| {
        json!({"metadata": {"name": "lessons", "annotations": {
            "meta.helm.sh/release-namespace": namespace, "meta.helm.sh/release-name": release,
        }}})
    };
    for (answer, is_good, told) in [
        (None, true, "is free"),
        (Some(owned("school", "blue")), true, "release's own"),
        (
            Some(owned("school", "red")),
            false,
            "of release 'red' in namespace 'school'",
        ),
        (
            Some(owned("other", "blue")),
            false,
            "of release 'blue' in namespace 'other'",
        ),
        (
            Some(json!({"metadata": {"name": "lessons"}})),
            false,
            "helm has not made it",
        ),
    ] {
        let answers = answer.map(|answer| ("GET", NAMESPACE, 200, answer));
        let (cluster, _) = cluster(answers.into_iter().collect());
        let found = namespace_of_learners(&cluster, "blue", "lessons").await;
        let said = match found {
            Found::Good(said) if is_good => said,
            found => bad_one(found).0,
        };
        assert!(said.contains(told), "{said}");
    }
    let (cluster, _) = cluster(vec![("GET", NAMESPACE, 403, forbidden())]);
    let found = namespace_of_learners(&cluster, "blue", "lessons").await;
    assert!(matches!(found, Found::Notice(why) if why.contains("may not get namespaces")));
}

#[tokio::test]
async fn a_release_that_is_there_already_is_said() {
    for (release, told) in [
        ("blue", "'helm upgrade' changes it"),
        ("red", "another release of Carrel"),
    ] {
        let there = list(&[pod(release, "gateway", "g", true)]);
        let (cluster, _) = cluster(vec![("GET", PODS, 200, there)]);
        let found = own_namespace(&cluster, "blue").await;
        assert!(matches!(found, Found::Notice(what) if what.contains(told)));
    }
    let (cluster, _) = cluster(vec![("GET", PODS, 200, list(&[]))]);
    let found = own_namespace(&cluster, "blue").await;
    assert!(matches!(found, Found::Good(what) if what.contains("--create-namespace")));
}

#[tokio::test]
async fn whether_levels_are_enforced_is_tried_without_making_anything() {
    let review = |allowed: bool| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {}, "status": {"allowed": allowed}});
    let made = json!({"metadata": {"name": "carrel-doctor-tries-pod-security"}});
    let (enforcing, asked) = cluster(vec![
        ("POST", REVIEW, 201, review(true)),
        (
            "POST",
            NAMESPACES,
            422,
            refusal(422, "must be one of privileged, baseline, restricted"),
        ),
    ]);
    assert!(matches!(pod_security(&enforcing).await, Found::Good(_)));
    let asked = asked.of("POST /api/v1/namespaces?");
    assert!(asked[0].0.contains("dryRun=All"), "{asked:?}");
    let (lax, _) = cluster(vec![
        ("POST", REVIEW, 201, review(true)),
        ("POST", NAMESPACES, 201, made),
    ]);
    let (what, _) = bad_one(pod_security(&lax).await);
    assert!(what.contains("enforces no levels"), "{what}");
    let (unable, asked) = cluster(vec![("POST", REVIEW, 201, review(false))]);
    assert!(matches!(pod_security(&unable).await, Found::Notice(_)));
    assert!(asked.of("POST /api/v1/namespaces").is_empty());
}

#[tokio::test]
async fn groups_that_the_chart_could_use_are_told_apart() {
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let groups =
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("metrics.k8s.io")]});
    let (cluster, _) = cluster(vec![("GET", "/apis", 200, groups)]);
    let Found::Notice(what) = metrics(&cluster).await else {
        unreachable!("some are missing");
    };
    assert!(
        what.starts_with(
            "there are metrics.k8s.io (for autoscaling); the cluster lacks monitoring"
        ),
        "{what}"
    );
}

#[test]
fn the_charts_own_names_are_meant_where_none_is_said() {
    let said = |words: &[&str]| {
        let words = [&["carrel", "doctor", "--pre"], words].concat();
        match cli::Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(cli::Command::Doctor(flags)) => learner_namespaces(&flags),
            other => unreachable!("{other:?}"),
        }
    };
    assert_eq!(said(&[]), ["carrel-learners"]);
    assert_eq!(said(&["--release", "blue"]), ["blue-carrel-learners"]);
    let named = ["--learner-namespace", "a", "--learner-namespace", "b"];
    assert_eq!(said(&named), ["a", "b"]);
}
