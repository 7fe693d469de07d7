//! The sidecar's HTTP interface, for gateway and fleet alone; but anybody may ask whether it lives and is ready.

mod agent;
mod caller;
mod health;
mod turns;

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use carrel_protocol::sidecar::{AssignRequest, Hello, Phase};
use carrel_protocol::{Code, Problem};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};

use crate::clock::now;
use crate::options::Listen;
use crate::pod::Pod;

/// How long a call that waits for something waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
/// By then a reason why a pod is not ready yet is worth telling.
const REASON_AFTER: Duration = Duration::from_secs(3);
/// The most bytes of a body: a message with its attachments.
const BODY_BYTES: usize = 64 << 20;
/// The most bytes of an assignment: it comes without a token.
const ASSIGNMENT_BYTES: usize = 256 << 10;

/// A problem as an answer.
pub(crate) struct Refusal(pub(crate) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_REQUEST);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, Json(self.0)).into_response()
    }
}

/// A place to listen at, taken.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Takes it; a socket that a dead sidecar left is replaced.
    pub(crate) async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Unix(path) => {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                UnixListener::bind(path).map(Self::Unix)
            }
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
        }
    }
}

/// Serves until the pod ends; running answers are finished.
pub(crate) async fn serve(listener: Listener, pod: Arc<Pod>) -> io::Result<()> {
    let end = pod.end.clone();
    let app = router(pod);
    let ended = async move { end.cancelled().await };
    match listener {
        Listener::Unix(listener) => {
            axum::serve(listener, app)
                .with_graceful_shutdown(ended)
                .await
        }
        Listener::Tcp(listener) => {
            axum::serve(listener, app)
                .with_graceful_shutdown(ended)
                .await
        }
    }
}

fn router(pod: Arc<Pod>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route(
            "/v1/assign",
            post(assign).layer(DefaultBodyLimit::max(ASSIGNMENT_BYTES)),
        )
        .route("/v1/hello", get(hello))
        .route("/v1/ready", get(ready))
        .route("/v1/turns", post(turns::start))
        .route("/v1/turns/{turn}/stop", post(turns::stop))
        .route("/v1/sleep", post(sleep))
        .route("/agent", any(agent::forward))
        .route("/agent/", any(agent::forward))
        .route("/agent/{*path}", any(agent::forward))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(pod)
}

async fn assign(
    State(pod): State<Arc<Pod>>,
    body: Result<Json<AssignRequest>, axum::extract::rejection::JsonRejection>,
) -> Result<Json<Hello>, Refusal> {
    let Json(request) = body.map_err(|error| Problem::new(Code::InvalidBody, error.body_text()))?;
    pod.assign(&request.assignment, now())?;
    Ok(Json(pod.hello()))
}

/// The newest report that a caller has.
#[derive(Deserialize)]
struct Known {
    after: Option<u64>,
}

/// Answers at once; with `?after=REVISION` as soon as there is another report than that, or after a while.
async fn hello(
    State(pod): State<Arc<Pod>>,
    Query(known): Query<Known>,
    headers: HeaderMap,
) -> Result<Json<Hello>, Refusal> {
    caller::check(&pod, &headers)?;
    if let Some(known) = known.after {
        let mut changes = pod.watch();
        let news = changes.wait_for(|now| now.revision != known);
        // Out of time is an answer too, and so is the end.
        let waits = tokio::time::timeout(ANSWER_WITHIN, news);
        let _ = pod.end.run_until_cancelled(waits).await;
    }
    Ok(Json(pod.hello()))
}

/// Waits until the pod takes turns or never will; less long when there is a reason to tell why it takes so long. A gateway may be
/// here before the assignment: it waits for it first.
async fn ready(State(pod): State<Arc<Pod>>, headers: HeaderMap) -> Result<Json<Hello>, Refusal> {
    let bearer = caller::bearer(&headers)?;
    let mut hello = pod.watch();
    let waits = async {
        let rest = ANSWER_WITHIN.saturating_sub(REASON_AFTER);
        for (within, why_is_news) in [(REASON_AFTER, false), (rest, true)] {
            let settled = hello.wait_for(|hello| match hello.phase {
                Phase::Blank | Phase::Restoring => why_is_news && !hello.detail.is_empty(),
                Phase::Ready
                | Phase::Busy
                | Phase::Draining
                | Phase::Snapshotting
                | Phase::Ending => true,
            });
            // Out of time is an answer too: it says how far the pod is.
            if tokio::time::timeout(within, settled).await.is_ok() {
                return;
            }
        }
    };
    pod.end.run_until_cancelled(waits).await;
    caller::check_bearer(&pod, bearer)?;
    Ok(Json(pod.hello()))
}

async fn sleep(State(pod): State<Arc<Pod>>, headers: HeaderMap) -> Result<StatusCode, Refusal> {
    caller::check(&pod, &headers)?;
    pod.drain();
    Ok(StatusCode::ACCEPTED)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use carrel_core::{Epoch, LearnerId};
    use carrel_protocol::token::{Caller, Signer, Verifier};
    use tokio::time::Instant;

    use super::*;
    use crate::exit::Exit;
    use crate::pod::tests::blank_of;

    /// A pod, and what lets the fleet ask how it is.
    fn pod() -> (Arc<Pod>, HeaderMap) {
        let signer = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
        let pod = blank_of(Verifier::new(&[signer.public_key().clone()]).unwrap());
        let learner: LearnerId = "ada".parse().unwrap();
        let token = signer
            .caller_token(Caller::Controller, &learner, Epoch(7), now())
            .unwrap();
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        (pod, headers)
    }

    async fn asked(pod: &Arc<Pod>, headers: &HeaderMap, after: Option<u64>) -> Hello {
        let answer = hello(
            State(Arc::clone(pod)),
            Query(Known { after }),
            headers.clone(),
        );
        let Ok(Json(hello)) = answer.await else {
            panic!("refused")
        };
        hello
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_news_of_a_pod_that_fell_asleep_is_answered_at_its_end() {
        let (pod, headers) = pod();
        pod.enter(Phase::Snapshotting, "");
        let began = Instant::now();
        let waits = asked(&pod, &headers, Some(pod.hello().revision));
        let ends = async {
            tokio::task::yield_now().await;
            pod.over(Exit::Clean);
            pod.end.cancel();
        };
        let (hello, ()) = tokio::join!(waits, ends);
        assert_eq!(hello.phase, Phase::Snapshotting);
        assert_eq!(began.elapsed(), Duration::ZERO, "the sidecar waits for it");
    }

    #[tokio::test(start_paused = true)]
    async fn news_between_two_questions_is_heard_at_once() {
        let (pod, headers) = pod();
        pod.enter(Phase::Restoring, "");
        let first = asked(&pod, &headers, None).await;
        pod.enter(Phase::Restoring, "the vault does not answer");
        let began = Instant::now();
        let second = asked(&pod, &headers, Some(first.revision)).await;
        assert_eq!(second.detail, "the vault does not answer");
        assert_eq!(began.elapsed(), Duration::ZERO);
        // The same once more is no news.
        pod.enter(Phase::Restoring, "the vault does not answer");
        asked(&pod, &headers, Some(second.revision)).await;
        assert_eq!(began.elapsed(), ANSWER_WITHIN);
    }
}
