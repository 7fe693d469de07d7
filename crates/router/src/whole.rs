//! An answer that comes whole: read, metered, settled, passed on.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use carrel_llm::meter::Meter;
use carrel_llm::{Failure, Kind};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::answer::{Refusal, set_named};
use crate::call::Call;
use crate::metrics::CallResult;
use crate::options::Timeouts;
use crate::upstream::{self, Answer, Error};

const MAX_ANSWER_BYTES: usize = 64 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Reads the answer, settles the call and gives the client's answer.
pub(crate) async fn read(
    call: Call,
    mut answer: Answer,
    timeouts: Timeouts,
) -> Result<Response, Refusal> {
    let shared = call.service.shared.clone();
    if !answer.status.is_success() {
        let body = collect(&mut answer, MAX_ERROR_BYTES, &timeouts).await;
        call.hold.settle_nothing(&shared).await;
        call.count(CallResult::Refused);
        return refused(&call, &answer, body);
    }
    let body = match collect(&mut answer, MAX_ANSWER_BYTES, &timeouts).await {
        Ok(body) => body,
        Err(error) => {
            call.hold.settle_worst(&shared).await;
            call.count(CallResult::Failed);
            return Err(error.failure(&call.target).into());
        }
    };
    let Ok(parsed) = serde_json::from_slice::<Value>(&body) else {
        call.hold.settle_worst(&shared).await;
        call.count(CallResult::Failed);
        return Err(Error::Broken.failure(&call.target).into());
    };
    let meter = Meter::of_body(call.dialect, &parsed);
    let cost = call.hold.settle(&shared, &meter).await;
    call.count(CallResult::Ok);
    let mut response = passed(answer, body);
    set_named(&mut response, "carrel-cost-nano-usd", &cost.0.to_string());
    Ok(response)
}

/// An error of the provider's: passed on if it is one that a client can read and shows no secret.
fn refused(call: &Call, answer: &Answer, body: Result<Bytes, Error>) -> Result<Response, Refusal> {
    let status = answer.status;
    let shown = body.ok().filter(|body| {
        let has_error =
            serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"].is_object());
        has_error && !shows_secret(body, answer)
    });
    tracing::warn!(model = %call.target, status = status.as_u16(), "a provider refused a model call");
    if let Some(body) = shown {
        let mut response = (status, Body::from(body)).into_response();
        response.headers_mut().extend(answer.headers.clone());
        return Ok(response);
    }
    let kind = match status.as_u16() {
        429 | 503 | 529 => Kind::Unavailable,
        408 | 504 => Kind::UpstreamTimeout,
        _ => Kind::UpstreamUnreachable,
    };
    let message = format!(
        "the provider '{}' answered with status {}",
        call.target.provider,
        status.as_u16()
    );
    Err(Failure::new(kind, message).into())
}

fn shows_secret(body: &[u8], answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(body);
    answer
        .secret
        .as_ref()
        .is_some_and(|secret| text.contains(secret.expose_secret()))
}

fn passed(answer: Answer, body: Bytes) -> Response {
    let mut response = (StatusCode::OK, Body::from(body)).into_response();
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

async fn collect(answer: &mut Answer, limit: usize, timeouts: &Timeouts) -> Result<Bytes, Error> {
    let reading = async {
        let mut body = BytesMut::new();
        while let Some(piece) = upstream::next(&mut answer.body, timeouts.idle).await {
            body.extend_from_slice(&piece?);
            if body.len() > limit {
                return Err(Error::Broken);
            }
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(timeouts.call, reading)
        .await
        .unwrap_or(Err(Error::Timeout))
}
