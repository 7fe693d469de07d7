//! An API server for tests: it knows certain answers, notes what was asked, and refuses the rest as one that has no such object.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::Cluster;

/// What it answers to a method and the beginning of a path.
pub(crate) type Answers = Vec<(&'static str, &'static str, u16, Value)>;

/// What was asked of it, and the bodies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<(String, Value)>>>);

impl Asked {
    /// All calls whose text begins so, with their bodies.
    pub(crate) fn of(&self, beginning: &str) -> Vec<(String, Value)> {
        let asked = self.0.lock().expect("no test panics with it");
        let of_it = asked.iter().filter(|(what, _)| what.starts_with(beginning));
        of_it.cloned().collect()
    }
}

/// A cluster that answers so; the first answer that fits counts.
pub(crate) fn cluster(answers: Answers) -> (Cluster, Asked) {
    let asked = Asked::default();
    let (answers, noted) = (Arc::new(answers), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answers, noted) = (answers.clone(), noted.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.expect("a body");
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let path = parts.uri.to_string();
            let what = format!("{} {path}", parts.method);
            noted
                .0
                .lock()
                .expect("no test panics with it")
                .push((what, body));
            let (status, answer) = find(&answers, &parts.method, &path);
            let response = Response::builder()
                .status(status)
                .body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("an answer"))
        }
    });
    (Cluster::scripted(Client::new(service, "school")), asked)
}

fn find(answers: &Answers, method: &Method, path: &str) -> (u16, Value) {
    let known = answers
        .iter()
        .find(|(known, beginning, ..)| method == *known && path.starts_with(beginning));
    match known {
        Some((_, _, status, answer)) => (*status, answer.clone()),
        None => (404, refusal(404, &format!("{path} is not there"))),
    }
}

/// A status of an API server that says no.
pub(crate) fn refusal(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        _ => "",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// What an API server says to a user who lacks a right.
pub(crate) fn forbidden() -> Value {
    refusal(403, "it is forbidden: User \"eve\" cannot do it")
}

/// A list of objects.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// A pod of a release.
pub(crate) fn pod(release: &str, component: &str, name: &str, is_ready: bool) -> Value {
    let ready = if is_ready { "True" } else { "False" };
    json!({
        "metadata": {"name": name, "namespace": "school", "labels": {
            "app.kubernetes.io/part-of": "carrel",
            "app.kubernetes.io/instance": release,
            "app.kubernetes.io/component": component,
        }},
        "spec": {
            "containers": [{"name": component, "ports": [{"name": "http", "containerPort": 8081}]}],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "secrets", "projected": {"sources": [
                    {"secret": {"name": "their-keys", "items": [
                        {"key": "gateway.key", "path": "gateway.key"},
                        {"key": "adminToken", "path": "admin.token"},
                    ]}},
                ]}},
            ],
        },
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}
