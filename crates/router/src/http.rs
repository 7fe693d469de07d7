//! The paths of the model API. Reads a request, hands it to the tracker, waits for its answer.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use carrel_llm::{Dialect, Failure, Kind};
use http::Uri;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::answer::{Refusal, RequestId};
use crate::call::{self, Incoming};
use crate::catalog;
use crate::door::Peer;
use crate::service::Service;

/// How long a client may take to send its request.
const BODY: Duration = Duration::from_mins(1);

/// The model API as an axum router, to be served in-process or by [`Service::run`]. Callers on loopback are known only
/// where [`Service::run`] serves.
pub fn router(service: &Service) -> Router {
    Router::new()
        .route("/", get(|| async { "carrel router\n" }))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/{*path}", any(nothing))
        .with_state(service.clone())
}

async fn messages(State(service): State<Service>, request: Request) -> Response {
    let call = |incoming| call::serve(service.clone(), incoming);
    handle(&service, request, Dialect::Anthropic, call).await
}

async fn chat(State(service): State<Service>, request: Request) -> Response {
    let call = |incoming| call::serve(service.clone(), incoming);
    handle(&service, request, Dialect::OpenAiChat, call).await
}

async fn count_tokens(State(service): State<Service>, request: Request) -> Response {
    let call = |incoming| catalog::count_tokens(service.clone(), incoming);
    handle(&service, request, Dialect::Anthropic, call).await
}

async fn models(State(service): State<Service>, request: Request) -> Response {
    let is_anthropic = request.headers().contains_key("anthropic-version");
    let dialect = if is_anthropic {
        Dialect::Anthropic
    } else {
        Dialect::OpenAiChat
    };
    let call = |incoming| catalog::models(service.clone(), incoming);
    handle(&service, request, dialect, call).await
}

async fn nothing(uri: Uri) -> Response {
    let message = format!("there is no {} here", uri.path());
    Refusal::from(Failure::new(Kind::NotFound, message))
        .into_response(Dialect::OpenAiChat, RequestId::new())
}

/// Runs a call on the tracker, so that it ends as it should even if the client leaves meanwhile.
async fn handle<F, C>(service: &Service, request: Request, dialect: Dialect, call: C) -> Response
where
    F: Future<Output = Result<Response, Refusal>> + Send + 'static,
    C: FnOnce(Incoming) -> F,
{
    let id = RequestId::new();
    let answered = match read(service, request, dialect, id).await {
        Ok(incoming) => {
            let running = service.shared.tracker.spawn(call(incoming));
            running.await.unwrap_or_else(|error| {
                tracing::error!(request.id = %id, %error, "a model call died");
                Err(
                    Failure::new(Kind::Internal, "the call failed here; see the router's log")
                        .into(),
                )
            })
        }
        Err(failure) => Err(failure.into()),
    };
    answered.unwrap_or_else(|refusal| {
        let kind = refusal.failure.kind;
        tracing::debug!(request.id = %id, %kind, "a model call was refused");
        refusal.into_response(dialect, id)
    })
}

async fn read(
    service: &Service,
    request: Request,
    dialect: Dialect,
    id: RequestId,
) -> Result<Incoming, Failure> {
    let limit = service.shared.options().max_body_bytes;
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<Peer>>();
    let body = bounded(body, limit).await?;
    Ok(Incoming {
        id,
        dialect,
        peer: peer.map(|ConnectInfo(Peer(address))| address.ip()),
        is_beta: parts
            .uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair == "beta=true")),
        headers: parts.headers,
        body,
        arrived: tokio::time::Instant::now(),
    })
}

async fn bounded(body: Body, limit: usize) -> Result<Bytes, Failure> {
    let read = tokio::time::timeout(BODY, Limited::new(body, limit).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request is longer than {} MiB", limit >> 20);
            Err(Failure::new(Kind::TooLarge, message))
        }
        Ok(Err(_)) => Err(Failure::new(Kind::InvalidRequest, "the request broke off")),
        Err(_) => Err(Failure::new(
            Kind::InvalidRequest,
            "the request took too long to arrive",
        )),
    }
}
