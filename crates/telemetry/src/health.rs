//! `/healthz` (alive), `/readyz` (names what is missing), `/metrics` (OpenMetrics text).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is missing before a role can serve; parts report themselves by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// The part is missing, and why.
    pub fn missing(&self, part: &'static str, why: impl Into<String>) {
        self.lock().insert(part, why.into());
    }

    /// The part is there.
    pub fn present(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// What is missing now: part and reason.
    pub fn list(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the health paths show.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: Readiness,
    registry: Arc<Registry>,
}

impl Health {
    /// Shows this readiness and this registry; metrics are registered before.
    pub fn new(readiness: Readiness, registry: Arc<Registry>) -> Self {
        Self {
            readiness,
            registry,
        }
    }

    /// The three paths.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let missing = health.readiness.list();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let lines: Vec<_> = missing
        .iter()
        .map(|(part, why)| format!("{part}: {why}\n"))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &health.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn get(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = health
            .clone()
            .router()
            .oneshot(request)
            .await
            .expect("infallible");
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_until_it_is_there() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.clone(), Arc::new(crate::registry("1.2.3")));
        readiness.missing("store", "connection refused");
        let (status, text) = get(&health, "/readyz").await;
        assert_eq!(
            (status.as_u16(), text.as_str()),
            (503, "store: connection refused\n")
        );
        readiness.present("store");
        assert_eq!(get(&health, "/readyz").await.0.as_u16(), 200);
        let (_, metrics) = get(&health, "/metrics").await;
        assert!(
            metrics.contains("carrel_build_info{version=\"1.2.3\"} 1"),
            "{metrics}"
        );
    }
}
