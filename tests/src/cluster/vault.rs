//! What stands in for the vault as controllers ask it: each question waits until the test answers.

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use carrel_protocol::Problem;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::school::SOON;
use super::stand_in::claims;

/// The vault. Dropping it ends it.
pub struct Vault {
    url: String,
    asked: mpsc::UnboundedReceiver<Wish>,
    _stop: DropGuard,
}

/// An older state that is asked for; dropped, no answer comes.
pub struct Wish {
    /// Whose, as the path says.
    pub learner: String,
    /// What the token says.
    pub claims: Value,
    /// Which snapshot.
    pub snapshot: String,
    answer: oneshot::Sender<Result<(), Problem>>,
}

impl Wish {
    /// Answers: it is taken, or it is not.
    pub fn answers(self, answer: Result<(), Problem>) {
        // Whoever asked may be gone.
        let _ = self.answer.send(answer);
    }

    /// The epoch after which the learner is said to sleep.
    pub fn epoch(&self) -> Option<u64> {
        self.claims["ep"].as_u64()
    }
}

impl Vault {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (asks, asked) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/v1/learners/{learner}/restore", post(restore))
            .with_state(asks);
        let stop = CancellationToken::new();
        let serves = axum::serve(listener, router).into_future();
        let ended = stop.clone();
        TaskTracker::new().spawn(async move { ended.run_until_cancelled(serves).await });
        Ok(Self {
            url,
            asked,
            _stop: stop.drop_guard(),
        })
    }

    /// The settings of controllers that ask here.
    pub fn settings(&self) -> Value {
        json!({"gateway": {"vaultUrl": self.url}})
    }

    /// The next question.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn next(&mut self) -> anyhow::Result<Wish> {
        let next = tokio::time::timeout(SOON, self.asked.recv()).await;
        next.context("the vault is not asked")?
            .context("it listens as long as this")
    }

    /// Whether nothing was asked but what the test has seen.
    pub fn is_quiet(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

async fn restore(
    State(asks): State<mpsc::UnboundedSender<Wish>>,
    Path(learner): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let bearer = headers.get(AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let (answer, answered) = oneshot::channel();
    let wish = Wish {
        learner,
        claims: bearer.and_then(claims).unwrap_or_default(),
        snapshot: body["snapshot_id"].as_str().unwrap_or_default().to_owned(),
        answer,
    };
    // The test may be over.
    let _ = asks.send(wish);
    match answered.await {
        Ok(Ok(())) => Json(json!({"generation": 1})).into_response(),
        Ok(Err(problem)) => {
            let status = StatusCode::from_u16(problem.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(problem)).into_response()
        }
        Err(_) => std::future::pending().await,
    }
}
