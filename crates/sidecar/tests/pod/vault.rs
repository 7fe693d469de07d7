//! A vault's heads, kept in memory, and the answers it gives instead when a test says so.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use carrel_core::event::Usage;
use carrel_core::{EventVersion, Generation, RepositoryId};
use carrel_protocol::vault::{CommitAnswer, CommitRequest, DamageReport, DataKey, Head};
use carrel_protocol::{Code, Problem};
use tokio::net::UnixListener;
use uuid::Uuid;

#[derive(Clone)]
pub(crate) struct Vault(Arc<Mutex<Ledger>>);

pub(crate) struct Ledger {
    pub(crate) head: Head,
    pub(crate) commits: Vec<CommitRequest>,
    /// Given to the next commits instead of an answer; what is `Ok` is done and the answer lost.
    pub(crate) commit_faults: VecDeque<Result<StatusCode, Problem>>,
    /// Given to the next questions for the head.
    pub(crate) head_faults: VecDeque<Problem>,
    pub(crate) damage: Vec<DamageReport>,
    pub(crate) bearers: Vec<String>,
}

impl Vault {
    pub(crate) fn listen(folder: &Path) -> Self {
        let head = Head {
            generation: Generation(0),
            snapshot_id: None,
            repository: RepositoryId(Uuid::from_u128(77)),
            recent_gaps_seconds: Vec::new(),
            opaque_learner: "opaque-1".to_owned(),
        };
        let ledger = Ledger {
            head,
            commits: Vec::new(),
            commit_faults: VecDeque::new(),
            head_faults: VecDeque::new(),
            damage: Vec::new(),
            bearers: Vec::new(),
        };
        let vault = Self(Arc::new(Mutex::new(ledger)));
        let listener = UnixListener::bind(folder.join("vault.sock")).expect("a socket");
        let app = Router::new()
            .route("/v1/learners/ada/head", get(head_of).put(commit))
            .route("/v1/learners/ada/key", get(key))
            .route("/v1/learners/ada/damage", post(damaged))
            .layer(DefaultBodyLimit::disable())
            .with_state(vault.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        vault
    }

    pub(crate) fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panicked with it"))
    }
}

fn problem(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).expect("a status");
    (status, Json(problem)).into_response()
}

async fn head_of(State(vault): State<Vault>, headers: HeaderMap) -> Response {
    let bearer = headers["authorization"].to_str().expect("text").to_owned();
    vault.ledger(|ledger| {
        ledger.bearers.push(bearer);
        match ledger.head_faults.pop_front() {
            Some(fault) => problem(fault),
            None => Json(ledger.head.clone()).into_response(),
        }
    })
}

async fn key() -> Json<DataKey> {
    Json(DataKey {
        encrypt: "ZQ==".into(),
        mac_k: "aw==".into(),
        mac_r: "cg==".into(),
    })
}

async fn damaged(State(vault): State<Vault>, Json(report): Json<DamageReport>) -> Json<Head> {
    vault.ledger(|ledger| {
        ledger.damage.push(report);
        Json(ledger.head.clone())
    })
}

async fn commit(State(vault): State<Vault>, Json(request): Json<CommitRequest>) -> Response {
    vault.ledger(|ledger| {
        let fault = ledger.commit_faults.pop_front();
        if let Some(Err(fault)) = fault {
            return problem(fault);
        }
        let repeated = ledger.commits.last() == Some(&request);
        let fits = request.generation == ledger.head.generation.next()
            && request.parent_snapshot_id == ledger.head.snapshot_id;
        if !repeated && !fits {
            return problem(Problem::new(Code::HeadMoved, ""));
        }
        ledger.head.generation = request.generation;
        ledger.head.snapshot_id = Some(request.snapshot_id.clone());
        if !repeated {
            ledger.commits.push(request);
        }
        if let Some(Ok(status)) = fault {
            return status.into_response();
        }
        Json(CommitAnswer {
            generation: ledger.head.generation,
            snapshot_id: ledger.head.snapshot_id.clone().expect("just set"),
            version: EventVersion(ledger.commits.len() as u64 + 40),
            usage: Usage {
                input_tokens: 3,
                output_tokens: 5,
                ..Usage::default()
            },
        })
        .into_response()
    })
}
