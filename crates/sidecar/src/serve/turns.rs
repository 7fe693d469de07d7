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
use carrel_protocol::sidecar::{Frame, TurnOrder};
use carrel_protocol::{Code, Problem};
use futures::StreamExt;

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
    let lines = attempt.frames().map(|frame| line(&frame));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
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
