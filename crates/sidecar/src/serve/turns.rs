//! `POST /v1/turns` and `POST /v1/turns/{id}/stop`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use carrel_core::TurnId;
use carrel_protocol::sidecar::{Frame, LINE_EVERY, TurnOrder};
use carrel_protocol::{Code, Problem};
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use super::{Refusal, caller};
use crate::pod::Pod;

/// Runs a turn, or attaches to it. The answer is what it says; losing it stops nothing.
pub(super) async fn start(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Result<Json<TurnOrder>, JsonRejection>,
) -> Result<Response, Refusal> {
    caller::check(&pod, &headers)?;
    let Json(order) = body.map_err(|error| Problem::new(Code::InvalidBody, error.body_text()))?;
    let attempt = pod.take_turn(order)?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines(attempt.frames()))).into_response())
}

/// A line a frame, and an empty one where none comes for a while.
fn lines(
    frames: impl Stream<Item = Frame> + Send,
) -> impl Stream<Item = serde_json::Result<Bytes>> + Send {
    futures::stream::unfold(Box::pin(frames), async |mut frames| {
        let line = match timeout(LINE_EVERY, frames.next()).await {
            Ok(frame) => line(&frame?),
            Err(_) => Ok(Bytes::from_static(b"\n")),
        };
        Some((line, frames))
    })
}

fn line(frame: &Frame) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Stops a turn; what was said and done so far is kept.
pub(super) async fn stop(
    State(pod): State<Arc<Pod>>,
    Path(turn): Path<TurnId>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    caller::check(&pod, &headers)?;
    let unknown = || Problem::new(Code::NotFound, "this turn does not run here");
    pod.find_turn(turn).ok_or_else(unknown)?.stop.cancel();
    Ok(StatusCode::ACCEPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_says_nothing_for_long_leaves_no_line_silent() {
        let says = futures::stream::once(async {
            tokio::time::sleep(2 * LINE_EVERY + LINE_EVERY / 2).await;
            Frame::Snapshotting
        });
        let said: Vec<_> = lines(says).map(Result::unwrap).collect().await;
        assert_eq!(said, ["\n", "\n", "{\"type\":\"snapshotting\"}\n"]);
    }
}
