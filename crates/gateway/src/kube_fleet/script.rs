//! An API server that expects certain calls in their order, and answers each as written: one too few or too many fails the test.

use std::time::Duration;

use carrel_protocol::token::Signer;
use carrel_store::SharedStore;
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{ApiWrites, Readiness, Registry};
use carrel_wire::Trust;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use tower_test::mock::{self, Handle};

use super::record::Record;
use super::{KubeFleet, KubeParts};
use crate::options::Clock;
use crate::sidecar::Sidecars;

/// Nobody is waited for longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call that is expected, and its answer.
pub(super) struct Step {
    pub(super) method: Method,
    /// What stands in its path and query.
    pub(super) holds: Vec<&'static str>,
    /// What its body is, if that matters.
    pub(super) body: Option<Value>,
    pub(super) status: u16,
    pub(super) answer: String,
}

pub(super) fn step(method: Method, holds: &[&'static str], status: u16, answer: &Value) -> Step {
    Step {
        method,
        holds: holds.to_vec(),
        body: None,
        status,
        answer: answer.to_string(),
    }
}

impl Step {
    pub(super) fn sends(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Lines of a watch, which ends after them.
    pub(super) fn lines(mut self, events: &[Value]) -> Self {
        self.answer = events
            .iter()
            .flat_map(|event| [event.to_string(), "\n".to_owned()])
            .collect();
        self
    }
}

/// The scripted API server.
pub(super) struct Server(Handle<Request<Body>, Response<Body>>);

impl Server {
    pub(super) fn new() -> (Client, Self) {
        let (service, handle) = mock::pair();
        (Client::new(service, "learning"), Self(handle))
    }

    /// Answers these calls, in this order.
    pub(super) async fn play(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            let what = format!("{} {:?}", step.method, step.holds);
            let next = tokio::time::timeout(PATIENCE, self.0.next_request()).await;
            let next = next.unwrap_or_else(|_| panic!("nobody asked for {what}"));
            let (request, answer) = next.expect("a client");
            let (parts, body) = request.into_parts();
            let place = parts.uri.to_string();
            let is_asked =
                parts.method == step.method && step.holds.iter().all(|part| place.contains(part));
            assert!(is_asked, "{} {place} instead of {what}", parts.method);
            if let Some(wanted) = step.body {
                let bytes = body.collect_bytes().await.expect("a body");
                let sent: Value = serde_json::from_slice(&bytes).expect("JSON");
                assert_eq!(sent, wanted, "{what}");
            }
            let response = Response::builder()
                .status(StatusCode::from_u16(step.status).expect("a status"))
                .body(Body::from(step.answer.into_bytes()));
            answer.send_response(response.expect("an answer"));
        }
    }

    /// Nobody has asked for more.
    pub(super) async fn is_done(&mut self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if let std::task::Poll::Ready(Some((request, _))) =
            futures::poll!(std::pin::pin!(self.0.next_request()))
        {
            panic!("one call too many: {} {}", request.method(), request.uri());
        }
    }
}

/// A learner's object.
#[expect(
    clippy::needless_pass_by_value,
    reason = "values are written where they are used"
)]
pub(super) fn object(name: &str, version: u64, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "Learner",
        "metadata": {
            "name": name,
            "namespace": "learning",
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "generation": 1,
        },
        "spec": spec,
        "status": status,
    })
}

/// A refusal of the API server.
pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// A fleet before a scripted API server, and the store that it takes objects over into.
pub(super) struct Stage {
    pub(super) fleet: KubeFleet,
    pub(super) server: Server,
    pub(super) store: SharedStore,
    registry: Registry,
    _folder: TempDir,
}

impl Stage {
    /// Its first list had these objects; no watch runs.
    pub(super) async fn with(objects: impl IntoIterator<Item = Value>) -> Self {
        let stage = Self::unlisted().await;
        for object in objects {
            let object = serde_json::from_value(object).expect("a learner");
            let (learner, record) = Record::of(object).expect("usable");
            stage.fleet.0.cache.listed(learner, record);
        }
        stage.fleet.0.cache.list_ends();
        stage
    }

    pub(super) async fn unlisted() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        let store: SharedStore = std::sync::Arc::new(store.expect("a store"));
        let (client, server) = Server::new();
        let mut registry = carrel_telemetry::registry("0.0.0");
        let writes = ApiWrites::register(&mut registry);
        let pem = Signer::generate_pem().expect("randomness");
        let fleet = KubeFleet::new(KubeParts {
            watching: client.clone(),
            client,
            namespace: "learning".to_owned(),
            store: std::sync::Arc::clone(&store),
            sidecars: Sidecars {
                signer: Signer::from_pem(&pem).expect("a key"),
                trust: Trust::default(),
                clock: Clock::new(|| Timestamp::UNIX_EPOCH),
                tracker: TaskTracker::new(),
            },
            writes,
            readiness: Readiness::default(),
            self_test: true,
        });
        Self {
            fleet,
            server,
            store,
            registry,
            _folder: folder,
        }
    }

    /// How often learners' objects were written so, as metrics have it.
    pub(super) fn written(&self, verb: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        let count = format!("carrel_api_writes_total{{resource=\"learners\",verb=\"{verb}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&count));
        line.unwrap_or("0").to_owned()
    }
}
