//! `/healthz` (alive), `/readyz` (names what is missing), `/metrics` (OpenMetrics text, with what is missing in it, too).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is missing before a role can serve; parts report themselves by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    missing: BTreeMap<&'static str, String>,
    stumbles: BTreeMap<&'static str, u64>,
}

impl Readiness {
    /// The part is missing, and why.
    pub fn missing(&self, part: &'static str, why: impl Into<String>) {
        self.lock().missing.insert(part, why.into());
    }

    /// The part is there.
    pub fn present(&self, part: &'static str) {
        self.lock().missing.remove(part);
    }

    /// The part failed and is tried again; until then what it gave before serves.
    pub fn stumbled(&self, part: &'static str) {
        *self.lock().stumbles.entry(part).or_default() += 1;
    }

    /// What is missing now: part and reason.
    pub fn list(&self) -> BTreeMap<&'static str, String> {
        self.lock().missing.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `carrel_not_ready{part}`, for who watches many and asks none of them, and `carrel_part_stumbles_total{part}`.
impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let parts = self.lock();
        let help = "Parts without which a role does not serve; none when it is ready";
        let mut family = encoder.encode_descriptor("not_ready", help, None, MetricType::Gauge)?;
        for part in parts.missing.keys() {
            ConstGauge::new(1_i64).encode(family.encode_family(&[("part", *part)])?)?;
        }
        let help = "Failures of parts that go on with what they had";
        let mut family =
            encoder.encode_descriptor("part_stumbles", help, None, MetricType::Counter)?;
        for (part, count) in &parts.stumbles {
            ConstCounter::new(*count).encode(family.encode_family(&[("part", *part)])?)?;
        }
        Ok(())
    }
}

/// What the health paths show.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: Readiness,
    /// The role's, and that of its readiness.
    registries: [Arc<Registry>; 2],
}

impl Health {
    /// Shows this readiness and this registry; metrics are registered before.
    pub fn new(readiness: Readiness, registry: Arc<Registry>) -> Self {
        let mut own = Registry::with_prefix("carrel");
        own.register_collector(Box::new(readiness.clone()));
        Self {
            readiness,
            registries: [registry, Arc::new(own)],
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
    let mut registries = health.registries.iter();
    let written = registries
        .try_for_each(|registry| encode_registry(&mut text, registry))
        .and_then(|()| encode_eof(&mut text));
    match written {
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
        let not_ready = "carrel_not_ready{part=\"store\"} 1\n";
        let (_, metrics) = get(&health, "/metrics").await;
        assert!(metrics.contains(not_ready), "{metrics}");
        readiness.present("store");
        assert_eq!(get(&health, "/readyz").await.0.as_u16(), 200);
        let (_, metrics) = get(&health, "/metrics").await;
        assert!(!metrics.contains(not_ready), "{metrics}");
        assert_eq!(metrics.matches("# EOF").count(), 1, "{metrics}");
        assert!(
            metrics.contains("carrel_build_info{version=\"1.2.3\"} 1"),
            "{metrics}"
        );
    }

    #[tokio::test]
    async fn what_stumbles_is_counted_and_leaves_the_role_ready() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.clone(), Arc::new(crate::registry("1.2.3")));
        readiness.stumbled("learners");
        readiness.stumbled("learners");
        assert_eq!(get(&health, "/readyz").await.0.as_u16(), 200);
        let (_, metrics) = get(&health, "/metrics").await;
        let stumbles = "carrel_part_stumbles_total{part=\"learners\"} 2\n";
        assert!(metrics.contains(stumbles), "{metrics}");
    }
}
