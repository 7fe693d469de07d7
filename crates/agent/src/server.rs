//! The `Http` adapter: `GET /healthz`, and `POST /v1/turn` answered with one JSON line an event.
//! The sidecar is the only caller. Knows nothing of how an answer comes about.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use carrel_protocol::agent::{Line, TurnRequest};
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tutor::Tutor;

/// Largest turn that is taken; the gateway's own limits are below it.
const MAX_TURN_BYTES: usize = 16 * 1024 * 1024;
/// Lines that may wait for a slow reader before the model is no longer read.
const LINES_AHEAD: usize = 64;
/// How long a turn waits for one that was just stopped to put its things away.
const PUT_AWAY: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Desk {
    tutor: Arc<Tutor>,
    /// One turn at a time.
    place: Arc<Semaphore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Serves until `cancel`, then waits for the running turn to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tutor: Tutor,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let desk = Desk {
        tutor: Arc::new(tutor),
        place: Arc::new(Semaphore::new(1)),
        tasks: TaskTracker::new(),
        cancel: cancel.clone(),
    };
    let tasks = desk.tasks.clone();
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/turn", post(turn))
        .layer(DefaultBodyLimit::max(MAX_TURN_BYTES))
        .with_state(desk);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await;
    tasks.close();
    tasks.wait().await;
    served
}

async fn turn(State(desk): State<Desk>, Json(request): Json<TurnRequest>) -> Response {
    let place = tokio::time::timeout(PUT_AWAY, desk.place.acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        return (StatusCode::CONFLICT, "a turn is running\n").into_response();
    };
    let (lines, waiting) = mpsc::channel(LINES_AHEAD);
    desk.tasks.spawn(async move {
        desk.tutor.answer(request, &lines, &desk.cancel).await;
        drop(place);
    });
    let body = Body::from_stream(ReceiverStream::new(waiting).map(|line| encode(&line)));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn encode(line: &Line) -> Result<Bytes, serde_json::Error> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}
