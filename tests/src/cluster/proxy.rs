//! A way to the API server on which a test stands: each request passes, waits until the test has done something else, is refused or
//! is lost, and watches that run can be cut or fall silent.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::{Stream, StreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::Access;

/// More than any request of ours has.
const BODY_BYTES: usize = 16 << 20;

/// A request, as far as tests choose by it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Whether it is a watch.
    pub is_watch: bool,
}

impl Asked {
    /// Whether it is of this method, and its path ends so.
    pub fn is(&self, method: &Method, end: &str) -> bool {
        self.method == *method && self.path.ends_with(end)
    }

    /// Whether it writes; the lease apart.
    pub fn writes(&self) -> bool {
        self.method != Method::GET && !self.path.contains("/leases")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, and its answer comes.
    Passes,
    /// It goes on, and its answer is lost.
    Unanswered,
    /// It is lost.
    Lost,
    /// It is refused with this status, and goes no further.
    Refused(StatusCode),
    /// A watch: what it would go on from is too old.
    Expired,
}

type Choice = Box<dyn Fn(&Asked) -> bool + Send + Sync>;

enum Rule {
    Fate(Fate),
    Counts(Arc<AtomicUsize>),
    Waits(mpsc::UnboundedSender<Held>),
}

/// The way. Dropping it ends it.
pub struct Proxy {
    folder: TempDir,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    client: kube::Client,
    rules: Mutex<Vec<(u64, Choice, Rule)>>,
    /// What was done to the watches that run: each later one does not know of it.
    watches: watch::Sender<Watches>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Watches {
    cuts: u64,
    silences: u64,
}

/// While it lives its rule is in force.
pub struct InForce {
    shared: Arc<Shared>,
    number: u64,
}

/// Requests that wait for the test.
pub struct Stop {
    waiting: mpsc::UnboundedReceiver<Held>,
    _in_force: InForce,
}

/// Counts requests, which go on.
pub struct Count {
    count: Arc<AtomicUsize>,
    _in_force: InForce,
}

impl Count {
    /// How many there were.
    pub fn so_far(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// A request that waits; dropped it passes.
pub struct Held {
    /// The request.
    pub asked: Asked,
    decided: oneshot::Sender<Decided>,
}

/// What becomes of a request, and who hears when the API server has answered it.
struct Decided {
    fate: Fate,
    is_done: Option<oneshot::Sender<()>>,
}

impl From<Fate> for Decided {
    fn from(fate: Fate) -> Self {
        Self {
            fate,
            is_done: None,
        }
    }
}

impl Held {
    /// What becomes of it.
    pub fn goes(self, fate: Fate) {
        // Whoever asked may have given up.
        let _ = self.decided.send(fate.into());
    }

    /// It goes on, and its answer is lost; waits until the API server has done it.
    ///
    /// # Panics
    /// When whoever asked has given up.
    pub async fn is_done_unanswered(self) {
        let (is_done, done) = oneshot::channel();
        let _ = self.decided.send(Decided {
            fate: Fate::Unanswered,
            is_done: Some(is_done),
        });
        done.await.expect("whoever asked still waits");
    }
}

impl Stop {
    /// The next request that waits.
    pub async fn next(&mut self) -> Held {
        let next = self.waiting.recv().await;
        next.expect("the rule holds the other end")
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let number = self.number;
        self.shared.rules().retain(|(known, _, _)| *known != number);
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Vec<(u64, Choice, Rule)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens on loopback, and asks on in this user's name.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(access: &Access) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            client: access.client().await?,
            rules: Mutex::default(),
            watches: watch::Sender::default(),
        });
        let router = Router::new().fallback(ask).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let served = async move { axum::serve(listener, router).await };
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(served));
        let folder = TempDir::with_prefix("carrel-proxy-")?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": url}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string())?;
        Ok(Self {
            folder,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// The way as a kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        Path::join(self.folder.path(), "kubeconfig")
    }

    /// What becomes of requests like these from now on, unless an earlier rule says otherwise.
    pub fn rule(
        &self,
        which: impl Fn(&Asked) -> bool + Send + Sync + 'static,
        fate: Fate,
    ) -> InForce {
        self.add(Box::new(which), Rule::Fate(fate))
    }

    /// Requests like these wait for the test from now on.
    pub fn stop(&self, which: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Stop {
        let (held, waiting) = mpsc::unbounded_channel();
        Stop {
            waiting,
            _in_force: self.add(Box::new(which), Rule::Waits(held)),
        }
    }

    /// Counts requests like these from now on.
    pub fn count(&self, which: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Count {
        let count = Arc::default();
        Count {
            _in_force: self.add(Box::new(which), Rule::Counts(Arc::clone(&count))),
            count,
        }
    }

    fn add(&self, which: Choice, rule: Rule) -> InForce {
        let mut rules = self.shared.rules();
        let number = rules.last().map_or(0, |(last, _, _)| last + 1);
        rules.push((number, which, rule));
        InForce {
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// The connections of all watches that were asked for break.
    pub fn cut_watches(&self) {
        self.shared.watches.send_modify(|watches| watches.cuts += 1);
    }

    /// All watches that were asked for stay open, and nothing comes on them any more.
    pub fn silence_watches(&self) {
        self.shared
            .watches
            .send_modify(|watches| watches.silences += 1);
    }
}

async fn ask(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let asked = Asked {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        is_watch: query.contains("watch=true"),
    };
    // Before it is counted: whoever has heard of a watch may cut it.
    let begun = *shared.watches.borrow();
    let Decided { fate, is_done } = decided(&shared, &asked).await;
    match fate {
        Fate::Passes => pass(&shared, &asked, begun, request).await,
        Fate::Unanswered => {
            let _ = pass(&shared, &asked, begun, request).await;
            // Nobody may wait for it.
            let _ = is_done.map(|is_done| is_done.send(()));
            broken()
        }
        Fate::Lost => broken(),
        Fate::Refused(status) => answer(
            status,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "refused on the way", "reason": "ServiceUnavailable", "code": status.as_u16(),
            })
            .to_string(),
        ),
        Fate::Expired => {
            let expired = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410,
            });
            answer(
                StatusCode::OK,
                json!({"type": "ERROR", "object": expired}).to_string(),
            )
        }
    }
}

async fn decided(shared: &Shared, asked: &Asked) -> Decided {
    let waits = {
        let rules = shared.rules();
        let mut ours = rules.iter().filter(|(_, which, _)| which(asked));
        let rule = ours.find(|(_, _, rule)| match rule {
            Rule::Counts(count) => {
                count.fetch_add(1, Ordering::Relaxed);
                false
            }
            Rule::Fate(_) | Rule::Waits(_) => true,
        });
        match rule {
            None | Some((_, _, Rule::Counts(_))) => return Fate::Passes.into(),
            Some((_, _, Rule::Fate(fate))) => return (*fate).into(),
            Some((_, _, Rule::Waits(stop))) => {
                let (decided, waits) = oneshot::channel();
                let asked = asked.clone();
                // Dropped with its stop it passes.
                let _ = stop.send(Held { asked, decided });
                waits
            }
        }
    };
    waits.await.unwrap_or(Fate::Passes.into())
}

async fn pass(shared: &Shared, asked: &Asked, begun: Watches, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut onward = http::Request::builder().method(parts.method).uri(parts.uri);
    for name in [ACCEPT, CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return broken();
    };
    let Ok(onward) = onward.body(kube::client::Body::from(body)) else {
        return broken();
    };
    let Ok(answered) = shared.client.send(onward).await else {
        return broken();
    };
    let (parts, body) = answered.into_parts();
    let body = Body::new(body);
    let body = if asked.is_watch {
        Body::from_stream(watched(body, begun, shared.watches.subscribe()))
    } else {
        body
    };
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}

/// What comes on a watch until it is cut, and nothing more once it is silent.
fn watched(
    body: Body,
    begun: Watches,
    watches: watch::Receiver<Watches>,
) -> impl Stream<Item = Result<Bytes, String>> {
    let state = Some((body.into_data_stream(), watches));
    futures::stream::unfold(state, move |state| async move {
        let (mut body, mut watches) = state?;
        loop {
            let now = *watches.borrow_and_update();
            if now.cuts > begun.cuts {
                return Some((Err("cut".to_owned()), None));
            }
            let is_silent = now.silences > begun.silences;
            tokio::select! {
                changed = watches.changed() => if changed.is_err() {
                    return None;
                },
                next = body.next(), if !is_silent => {
                    let next = next?.map_err(|error| error.to_string());
                    return Some((next, Some((body, watches))));
                }
            }
        }
    })
}

fn answer(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body + "\n"));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The connection breaks before the answer is whole.
fn broken() -> Response {
    let lost = futures::stream::once(async { Err::<Bytes, _>("lost".to_owned()) });
    Response::new(Body::from_stream(lost))
}
