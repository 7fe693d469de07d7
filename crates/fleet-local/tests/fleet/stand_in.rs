//! A pod's two processes, as far as the fleet sees them: a sidecar that is in the phase that it was told last, and a shim
//! that ends with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use carrel_core::LearnerId;
use carrel_protocol::sidecar::{AssignRequest, Hello, Phase};
use carrel_protocol::token::{PublicKey, Verifier};
use carrel_testkit::{ends, until};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Each test has ended by then.
const LONGEST_TEST: Duration = Duration::from_hours(1);
/// As a real one does, a question that waits is answered in the end.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// Whose turn runs before anybody has seen it ready.
pub(crate) const AT_WORK: &str = "at-work";

/// What a sidecar is told to be; sent to `POST /told`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) phase: Phase,
    pub(crate) quiet_since: Option<Timestamp>,
}

#[derive(Clone)]
struct Sidecar {
    verifier: Verifier,
    hello: watch::Sender<Hello>,
    asked_to_sleep: watch::Sender<bool>,
}

#[derive(Deserialize)]
struct Known {
    after: Option<u64>,
}

/// The value after a flag.
fn value(words: &[String], flag: &str) -> String {
    let place = words.iter().position(|word| word == flag).unwrap();
    words[place + 1].clone()
}

fn texts(words: impl Iterator<Item = OsString>) -> Vec<String> {
    words.map(|word| word.into_string().unwrap()).collect()
}

fn block_on(future: impl Future<Output = ()>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future);
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Ends when it was asked to sleep and no turn runs, or when the test has ended.
pub(crate) fn sidecar(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words = texts(words);
    let parent: u32 = value(&words, "--parent").parse().unwrap();
    let keys = std::fs::read(value(&words, "--keys")).unwrap();
    let keys: Vec<PublicKey> = serde_json::from_slice(&keys).unwrap();
    let hello = Hello {
        pod: value(&words, "--pod").parse().unwrap(),
        learner: None,
        epoch: None,
        phase: Phase::Blank,
        detail: String::new(),
        agent_connected: true,
        restore_ms: Some(3),
        agent_ms: Some(4),
        quiet_since: None,
        committed: false,
        fell_back: false,
        fence: None,
        revision: 0,
    };
    let sidecar = Sidecar {
        verifier: Verifier::new(&keys).unwrap(),
        hello: watch::Sender::new(hello),
        asked_to_sleep: watch::Sender::new(false),
    };
    let socket = value(&words, "--listen");
    let socket = PathBuf::from(socket.strip_prefix("unix:").unwrap());
    let shim_socket = value(&words, "--shim-socket");
    block_on(async move {
        let shims = UnixListener::bind(shim_socket).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let app = Router::new()
            .route("/v1/assign", post(assign))
            .route("/v1/hello", get(report))
            .route("/v1/sleep", post(sleep))
            .route("/told", post(told))
            .with_state(sidecar.clone());
        let shim = async {
            let _shim = shims.accept().await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served.unwrap(),
            () = shim => {}
            () = asleep(&sidecar) => {}
            () = orphaned(parent) => {}
        }
    })
}

/// Ends when its sidecar does.
pub(crate) fn shim(words: impl Iterator<Item = OsString>) -> ExitCode {
    let socket = value(&texts(words), "--socket");
    block_on(async move {
        let found = Mutex::new(None);
        until("its sidecar listens, or its folder is gone", async || {
            let sidecar = UnixStream::connect(&socket).await.ok();
            let is_there = sidecar.is_some();
            *found.lock().unwrap() = sidecar;
            is_there || !Path::new(&socket).parent().is_some_and(Path::exists)
        })
        .await;
        if let Some(mut sidecar) = found.into_inner().unwrap() {
            let _ = sidecar.read_u8().await;
        }
    })
}

async fn asleep(sidecar: &Sidecar) {
    let mut asked = sidecar.asked_to_sleep.subscribe();
    asked.wait_for(|asked| *asked).await.unwrap();
    let mut hello = sidecar.hello.subscribe();
    let free = |hello: &Hello| hello.phase != Phase::Busy;
    hello.wait_for(free).await.unwrap();
}

async fn orphaned(parent: u32) {
    let ended = tokio::task::spawn_blocking(move || ends(parent, LONGEST_TEST));
    assert!(ended.await.unwrap(), "the test does not end");
}

async fn assign(State(sidecar): State<Sidecar>, Json(body): Json<AssignRequest>) -> StatusCode {
    let now = Timestamp::now();
    let assignment = sidecar.verifier.assignment(&body.assignment, now).unwrap();
    sidecar.hello.send_modify(|hello| {
        hello.learner = Some(assignment.learner);
        hello.epoch = Some(assignment.epoch);
        hello.phase = match hello.learner.as_ref().map(LearnerId::as_str) {
            Some(AT_WORK) => Phase::Busy,
            _ => Phase::Ready,
        };
        hello.quiet_since = Some(now);
        hello.revision += 1;
    });
    StatusCode::OK
}

async fn report(
    State(sidecar): State<Sidecar>,
    Query(Known { after }): Query<Known>,
) -> Json<Hello> {
    let mut hello = sidecar.hello.subscribe();
    let changed = hello.wait_for(|hello| Some(hello.revision) != after);
    let _ = tokio::time::timeout(ANSWER_WITHIN, changed).await;
    Json(sidecar.hello.borrow().clone())
}

async fn sleep(State(sidecar): State<Sidecar>) -> StatusCode {
    sidecar.asked_to_sleep.send_replace(true);
    StatusCode::ACCEPTED
}

async fn told(State(sidecar): State<Sidecar>, Json(told): Json<Told>) -> StatusCode {
    sidecar.hello.send_modify(|hello| {
        hello.phase = told.phase;
        hello.revision += 1;
        hello.quiet_since = told.quiet_since;
    });
    StatusCode::OK
}
