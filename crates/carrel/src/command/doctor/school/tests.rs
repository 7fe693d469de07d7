use serde_json::{Value, json};

use super::*;
use crate::cluster::script::{Answers, cluster, forbidden, list};

const CLASSES: &str = "/apis/carrel.dev/v1alpha1/namespaces/school/learnerclasses";
const LEARNERS: &str = "/apis/carrel.dev/v1alpha1/namespaces/school/learners?";
const MAPS: &str = "/api/v1/namespaces/school/configmaps";
const PODS: &str = "/api/v1/namespaces/pods-0/pods";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/pods-0/networkpolicies";

fn class(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerClass", "metadata": {"name": name}, "spec": spec})
}

fn learner(name: &str, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(kind, status, reason)| {
            json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect();
    json!({"apiVersion": "carrel.dev/v1alpha1", "kind": "Learner", "metadata": {"name": name}, "spec": {"className": "free"},
        "status": {"epoch": 3, "conditions": conditions}})
}

fn blank(name: &str, class: &str, ready: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"carrel.dev/class": class}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn map() -> Value {
    let text = "kubernetes: {learnerNamespaces: [pods-0]}\n";
    list(&[json!({"metadata": {"name": "carrel"}, "data": {"carrel.yaml": text}})])
}

/// What is said of each, good or not.
async fn said(answers: Answers) -> Vec<(&'static str, bool, String)> {
    let (cluster, _) = cluster(answers);
    let found = look(&cluster).await;
    let said = found.into_iter().map(|(name, found)| match found {
        Found::Good(what) => (name, true, what),
        Found::Notice(what) => (name, false, format!("note {what}")),
        Found::Bad { what, next } => (name, false, format!("{what} | {next}")),
    });
    said.collect()
}

#[tokio::test]
async fn what_is_well_is_counted() {
    let said = said(vec![
        (
            "GET",
            CLASSES,
            200,
            list(&[class("free", &json!({"warmPool": {"size": 1}}))]),
        ),
        (
            "GET",
            LEARNERS,
            200,
            list(&[learner("ada", &[("Ready", "False", "Asleep")])]),
        ),
        ("GET", MAPS, 200, map()),
        ("GET", PODS, 200, list(&[blank("w-1", "free", "True")])),
        (
            "GET",
            POLICIES,
            200,
            list(&[json!({"metadata": {"name": "deny"}})]),
        ),
    ])
    .await;
    let expected = [
        ("classes", "1 looked at, all can be used"),
        ("learners", "1 looked at, none has failed"),
        ("pools", "are full"),
        ("network policies", "are in pods-0"),
    ];
    assert_eq!(
        said,
        expected.map(|(name, what)| (name, true, what.to_owned()))
    );
}

#[tokio::test]
async fn what_is_wrong_is_counted_and_first_names_are_said() {
    let mut learners: Vec<_> = (1..=6)
        .map(|n| learner(&format!("f{n}"), &[("Ready", "False", "Failed")]))
        .collect();
    learners.push(learner("given", &[("Assigned", "False", "GivenUp")]));
    learners.push(learner("risky", &[("DataAtRisk", "True", "DiedUnsaved")]));
    let classes = [
        class(
            "broken",
            &json!({"idle": {"minSeconds": 90, "maxSeconds": 30}}),
        ),
        class("empty", &json!({"warmPool": {"size": 2}})),
        class("half", &json!({"warmPool": {"size": 2}})),
    ];
    let pods = [blank("w-1", "half", "True"), blank("w-2", "empty", "False")];
    let said = said(vec![
        ("GET", CLASSES, 200, list(&classes)),
        ("GET", LEARNERS, 200, list(&learners)),
        ("GET", MAPS, 200, map()),
        ("GET", PODS, 200, list(&pods)),
        ("GET", POLICIES, 200, list(&[])),
    ])
    .await;
    assert!(said.iter().all(|(_, is_good, _)| !is_good), "{said:?}");
    let texts: Vec<_> = said.iter().map(|(.., text)| text.as_str()).collect();
    assert!(
        texts[0].starts_with("cannot be used: 'broken' ("),
        "{}",
        texts[0]
    );
    assert!(
        texts[0].ends_with("edit learnerclass broken"),
        "{}",
        texts[0]
    );
    assert!(
        texts[1].starts_with(
            "7 cannot be started: f1, f2, f3, f4, f5, …; of 1 something may be lost: risky |"
        ),
        "{}",
        texts[1]
    );
    assert!(
        texts[1].ends_with("-n school describe learner f1"),
        "{}",
        texts[1]
    );
    assert!(
        texts[2].starts_with("'empty' has 0 of 2, 'half' has 1 of 2 |"),
        "{}",
        texts[2]
    );
    assert!(texts[3].starts_with("none in pods-0"), "{}", texts[3]);
}

#[tokio::test]
async fn what_may_not_be_read_is_said_and_no_failure_of_the_school() {
    let said = said(vec![
        (
            "GET",
            CLASSES,
            200,
            list(&[class("free", &json!({"warmPool": {"size": 1}}))]),
        ),
        ("GET", LEARNERS, 403, forbidden()),
        ("GET", MAPS, 200, map()),
        ("GET", PODS, 403, forbidden()),
        ("GET", POLICIES, 403, forbidden()),
    ])
    .await;
    assert!(
        said[1].2.contains("may not list learners.carrel.dev"),
        "{said:?}"
    );
    assert!(said[2].2.starts_with("note are not looked at"), "{said:?}");
    assert!(said[3].2.starts_with("note are not looked at"), "{said:?}");
}
