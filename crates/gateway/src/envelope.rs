//! What every answer has: a request id, `nosniff`, and a problem document when it refuses, also when a library refused.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use carrel_protocol::{Code, Problem};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::gateway::Shared;
use crate::outside::Outside;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ID_LENGTH: usize = 64;

/// Marks an answer whose body stays as it is: an agent's, passed on, or what probes read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassedOn;

/// Wraps every request.
pub(crate) async fn wrap(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(&request);
    let peer = request.extensions().get().copied();
    let outside =
        peer.map(|peer| Outside::of(peer, request.headers(), &shared.options.trusted_proxies));
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        method = %request.method(),
        // Never the query: it may hold a code.
        path = request.uri().path(),
        client = outside.map(|outside| tracing::field::display(outside.client)),
    );
    if let Some(outside) = outside {
        request.extensions_mut().insert(outside);
    }
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    if response.extensions().get::<PassedOn>().is_none() {
        explain(&mut response, &id);
    }
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    span.in_scope(|| {
        tracing::debug!(
            status = response.status().as_u16(),
            milliseconds = began.elapsed().as_millis(),
            "answered"
        );
    });
    response
}

/// The client's own id if it is a plain word, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(&REQUEST_ID);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    given
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=ID_LENGTH).contains(&id.len()) && id.bytes().all(plain))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn explain(response: &mut Response, id: &str) {
    let given = response.extensions_mut().remove::<Problem>();
    let problem = match given {
        Some(problem) => problem,
        None if response.status().is_client_error() || response.status().is_server_error() => {
            if response
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|t| t == "text/plain")
            {
                return;
            }
            Problem::new(code_of(response.status()), "")
        }
        None => return,
    };
    let problem = Problem {
        request_id: Some(id.to_owned()),
        ..problem
    };
    let Ok(body) = serde_json::to_vec(&problem) else {
        return;
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = status;
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidRequest,
        _ => Code::Internal,
    }
}
