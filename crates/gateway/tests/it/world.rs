//! A gateway with all that it needs, which can be ended and started again over the same store and fleet.

use std::sync::Arc;

use carrel_gateway::{
    Clock, Handle, Limits, Metrics, Options, TrustedProxies, hash_of, serve, start,
};
use carrel_protocol::token::{Signer, Verifier};
use carrel_store::SharedStore;
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{Health, Readiness, Snapshots, Wakes};
use carrel_wire::{Incoming, Trust};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Answer, Client, Events};
use crate::fleet::Scripted;
use crate::vault::Noting;

pub(crate) const ADMIN: &str = "the-admin-token";

#[expect(clippy::disallowed_methods, reason = "these tests run in real time")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// What a gateway is started with.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) trusted_proxies: TrustedProxies,
    /// Whether other gateways use the store.
    pub(crate) among_others: bool,
}

/// A gateway with all that it needs.
pub(crate) struct World {
    pub(crate) store: SharedStore,
    /// The same.
    pub(crate) database: Arc<SqliteStore>,
    pub(crate) fleet: Arc<Scripted>,
    pub(crate) vault: Arc<Noting>,
    pub(crate) base: String,
    pub(crate) handle: Handle,
    pub(crate) settings: Settings,
    pub(crate) signer: Signer,
    tracker: TaskTracker,
    cancel: CancellationToken,
    pods: TaskTracker,
    folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Limits {
            messages_per_minute: 1000,
            ..Limits::default()
        })
        .await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = SqliteStore::open(&folder.path().join("store.db")).await;
        let database = Arc::new(database.expect("a store"));
        let store: SharedStore = Arc::<SqliteStore>::clone(&database);
        let signer = Signer::from_pem(&Signer::generate_pem().expect("randomness")).expect("a key");
        let verifier = Verifier::new(&[signer.public_key().clone()]).expect("a key");
        let pods = TaskTracker::new();
        let sockets = folder.path().to_owned();
        let fleet = Scripted::new(Arc::clone(&store), sockets, verifier, pods.clone());
        let vault = Arc::new(Noting {
            store: Arc::clone(&store),
            erased: std::sync::Mutex::default(),
            busy: tokio::sync::Mutex::default(),
        });
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let settings = Settings {
            limits,
            ..Settings::default()
        };
        let (handle, base) = begin(
            &store, &fleet, &vault, &signer, &settings, &tracker, &cancel,
        )
        .await;
        Self {
            store,
            database,
            fleet,
            vault,
            base,
            handle,
            settings,
            signer,
            tracker,
            cancel,
            pods,
            folder,
        }
    }

    /// The store as another process sees it: the gateway hears no hint of what is written there.
    pub(crate) async fn elsewhere(&self) -> SqliteStore {
        let store = SqliteStore::open(&self.folder.path().join("store.db")).await;
        store.expect("a store")
    }

    /// A learner's browser, signed in by https if it says so: the cookie that it is given.
    pub(crate) async fn cookie(&self, id: &str, protocol: &str) -> String {
        let path = format!("/admin/v1/learners/{id}/links");
        let link = self.operator().post(&path, &json!({})).await;
        let link = link.is(200).json();
        let code = link["url"].as_str().and_then(|url| url.split_once("code="));
        let code = json!({"code": code.expect("a code").1});
        let browser = self.nobody().with("x-forwarded-proto", protocol);
        let answer = browser.post("/v1/sign-in", &code).await;
        let cookie = answer.is(200).headers["set-cookie"].to_str();
        cookie.expect("text").to_owned()
    }

    /// Ends the gateway as a kill does, and starts another.
    pub(crate) async fn restart(&mut self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker = TaskTracker::new();
        self.cancel = CancellationToken::new();
        (self.handle, self.base) = begin(
            &self.store,
            &self.fleet,
            &self.vault,
            &self.signer,
            &self.settings,
            &self.tracker,
            &self.cancel,
        )
        .await;
    }

    pub(crate) fn nobody(&self) -> Client {
        Client::new(&self.base)
    }

    pub(crate) fn operator(&self) -> Client {
        self.nobody().bearer(ADMIN)
    }

    /// Makes a learner and gives its client.
    pub(crate) async fn learner(&self, id: &str) -> Client {
        let made = self
            .operator()
            .post("/admin/v1/learners", &json!({"id": id}))
            .await;
        made.is(200);
        self.client_of(id).await
    }

    pub(crate) async fn client_of(&self, id: &str) -> Client {
        let path = format!("/admin/v1/learners/{id}/tokens");
        let answer = self.operator().post(&path, &json!({})).await;
        let token = answer.is(200).json()["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        self.nobody().bearer(&token)
    }
}

async fn begin(
    store: &SharedStore,
    fleet: &Arc<Scripted>,
    vault: &Arc<Noting>,
    signer: &Signer,
    settings: &Settings,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> (Handle, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let mut registry = carrel_telemetry::registry("0.0.0");
    let wakes = Wakes::register(&mut registry);
    let snapshots = Snapshots::register(&mut registry);
    let metrics = Metrics::register(&mut registry, wakes, snapshots);
    let options = Options {
        store: Arc::clone(store),
        fleet: Arc::clone(fleet) as _,
        vault: Arc::clone(vault) as _,
        signer: signer.clone(),
        trust: Trust::default(),
        limits: settings.limits,
        public_url: base.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        admin_token_hash: hash_of(ADMIN),
        clock: Clock::new(now),
        metrics,
        health: Health::new(Readiness::default(), Arc::new(registry)),
        relay_url: String::new(),
        alone: !settings.among_others,
    };
    let handle = start(options, tracker.clone(), cancel.clone());
    let incoming = Incoming::new(listener, None);
    let served = serve(incoming, handle.router(), tracker.clone(), cancel.clone());
    tracker.spawn(served);
    (handle, base)
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.pods.close();
    }
}

/// Sends a message.
pub(crate) async fn post(client: &Client, learner: &str, key: &str, text: &str) -> Answer {
    let path = format!("/v1/learners/{learner}/messages");
    client
        .with("idempotency-key", key)
        .post(&path, &json!({"text": text}))
        .await
}

/// Sends a message that is accepted; its turn.
pub(crate) async fn accepted(client: &Client, learner: &str, key: &str, text: &str) -> String {
    let answer = post(client, learner, key, text).await;
    answer.is(202).json()["turn_id"]
        .as_str()
        .expect("a turn")
        .to_owned()
}

/// Sends a message and reads its turn's stream.
pub(crate) async fn streamed(client: &Client, learner: &str, key: &str, text: &str) -> Events {
    let client = client
        .with("idempotency-key", key)
        .with("content-type", "application/json")
        .with("accept", "text/event-stream");
    let path = format!("/v1/learners/{learner}/messages");
    let body = json!({"text": text}).to_string();
    Events::new(client.send(http::Method::POST, &path, body.into()).await)
}

/// The turn's document.
pub(crate) async fn turn_of(client: &Client, learner: &str, turn: &str) -> Value {
    let answer = client
        .get(&format!("/v1/learners/{learner}/turns/{turn}"))
        .await;
    answer.is(200).json()
}
