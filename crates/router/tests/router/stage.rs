//! A router that serves on loopback, its store, and those who call it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::class::{Budget, ClassSpec, Models, OnExhausted};
use carrel_core::money::Usd;
use carrel_core::{Epoch, LearnerId, NanoUsd, PodUid};
use carrel_llm::{Dialect, PriceTable};
use carrel_protocol::token::{Signer, Verifier};
use carrel_router::{Metrics, Options, Ports, Provider, Routes, Service, StorePolicy, Timeouts};
use carrel_store::learners::NewLearner;
use carrel_store::ledger::{UsageBy, UsageRow};
use carrel_store::{Learners as _, Ledger as _};
use carrel_store_sqlite::SqliteStore;
use carrel_wire::Incoming;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) const PROVIDER_KEY: &str = "sk-provider-4711";
pub(crate) const DESK_KEY: &str = "desk-key-0815";
pub(crate) const MODEL: &str = "house/tutor-1";
/// Input 10, output 1,000 nano-USD a token.
const PRICES: &str = r#"{"version": "test", "models": {"house/tutor-1": {"input": 10, "output": 1000, "max_output": 6000}}}"#;

pub(crate) struct Stage {
    pub(crate) url: String,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) service: Service,
    pub(crate) metrics: Metrics,
    pub(crate) client: reqwest::Client,
    signer: Signer,
    _end: DropGuard,
    _folder: TempDir,
}

pub(crate) fn now() -> Timestamp {
    "2026-11-20T12:30:00Z".parse().unwrap()
}

pub(crate) fn learner(name: &str) -> LearnerId {
    name.parse().unwrap()
}

/// Options with one provider in both dialects.
pub(crate) fn options(provider_url: &str) -> Options {
    let provider = |dialect, base_url| Provider {
        name: "house".into(),
        dialect,
        base_url,
        keys: vec![PROVIDER_KEY.into()],
    };
    let overlay = PriceTable::parse(PRICES).unwrap();
    let mut options = Options {
        providers: vec![
            provider(Dialect::Anthropic, provider_url.to_owned()),
            provider(Dialect::OpenAiChat, format!("{provider_url}/v1")),
        ],
        routes: Routes(
            [
                ("default".to_owned(), vec![MODEL.parse().unwrap()]),
                ("background".to_owned(), vec!["demo/tutor".parse().unwrap()]),
            ]
            .into(),
        ),
        prices: PriceTable::vendored().overlaid(overlay),
        timeouts: Timeouts {
            first_byte: Duration::from_secs(20),
            ..Timeouts::default()
        },
        ..Options::default()
    };
    options.callers.keys.push(DESK_KEY.into());
    options
}

/// A budget in nano-USD a day.
pub(crate) fn budget(per_day: i64, on_exhausted: OnExhausted) -> Budget {
    Budget {
        per_day_usd: Some(Usd(NanoUsd(per_day))),
        per_month_usd: Some(Usd(NanoUsd(per_day * 20))),
        on_exhausted,
    }
}

impl Stage {
    pub(crate) async fn set(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(
            SqliteStore::open(Path::new(&folder.path().join("store.db")))
                .await
                .unwrap(),
        );
        let signer = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
        let metrics = Metrics::default();
        let ports = Ports {
            ledger: store.clone(),
            policy: Arc::new(StorePolicy(store.clone())),
            verifier: Verifier::new(&[signer.public_key().clone()]).unwrap(),
            clock: Arc::new(now),
            metrics: metrics.clone(),
        };
        let service = Service::new(options, ports).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let end = CancellationToken::new();
        TaskTracker::new().spawn(
            service
                .clone()
                .run(Incoming::new(listener, None), end.clone()),
        );
        Self {
            url,
            store,
            service,
            metrics,
            client: reqwest::Client::new(),
            signer,
            _end: end.drop_guard(),
            _folder: folder,
        }
    }

    /// Adds a learner with a class of its own.
    pub(crate) async fn enrol(&self, name: &str, budget: Budget, allow: &[&str]) {
        let class: carrel_core::ClassName = format!("class-of-{name}").parse().unwrap();
        let spec = ClassSpec {
            budget,
            models: Models {
                allow: allow.iter().map(|pattern| (*pattern).to_owned()).collect(),
                ..Models::default()
            },
            ..ClassSpec::default()
        };
        self.store.put_class(&class, &spec).await.unwrap();
        let new = NewLearner {
            id: learner(name),
            class,
            aliases: Vec::new(),
        };
        self.store.create_learner(&new, now()).await.unwrap();
    }

    pub(crate) fn token(&self, name: &str, epoch: Epoch) -> String {
        let pod = PodUid(Uuid::from_u128(99));
        self.signer
            .learner_token(&learner(name), epoch, pod, now())
            .unwrap()
    }

    /// A call of a learner's first incarnation.
    pub(crate) async fn call(&self, name: &str, path: &str, body: &Value) -> reqwest::Response {
        let token = self.token(name, Epoch(1));
        self.post(path, &token, body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, bearer: &str, body: String) -> reqwest::Response {
        let url = format!("{}{path}", self.url);
        let request = self
            .client
            .post(url)
            .bearer_auth(bearer)
            .header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn models(&self, bearer: &str) -> reqwest::Response {
        let url = format!("{}/v1/models", self.url);
        self.client
            .get(url)
            .bearer_auth(bearer)
            .send()
            .await
            .unwrap()
    }

    /// What the ledger has of a learner.
    pub(crate) async fn spent(&self, name: &str) -> UsageRow {
        let (since, until) = (
            "2026-11-01T00:00:00Z".parse().unwrap(),
            "2026-12-01T00:00:00Z".parse().unwrap(),
        );
        let rows = self
            .store
            .usage(UsageBy::Learner, Some(&learner(name)), since, until)
            .await
            .unwrap();
        rows.into_iter().next().unwrap_or(UsageRow {
            key: name.to_owned(),
            calls: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_nano_usd: NanoUsd::ZERO,
        })
    }

    /// Waits until every call has settled, also those whose clients left.
    pub(crate) async fn settled(&self) {
        self.service.drain(Duration::from_secs(20)).await;
    }
}

/// A request for a message.
pub(crate) fn messages(model: &str, max_tokens: u64, stream: bool) -> Value {
    json!({
        "model": model, "max_tokens": max_tokens, "stream": stream,
        "messages": [{"role": "user", "content": "What is a prime number?"}],
    })
}

/// A request for a chat completion.
pub(crate) fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "What is a leap year?"}]})
}

/// A header's text.
pub(crate) fn header(response: &reqwest::Response, name: &str) -> String {
    let value = response.headers().get(name);
    value
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}
