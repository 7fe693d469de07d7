//! `/healthz`, `/readyz` and `/metrics` beside the API, with what has to be read from the store when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::time::timeout;

use crate::envelope::PassedOn;
use crate::gateway::Shared;

/// Whoever probes waits a second, as a rule.
const ANSWERS_WITHIN: Duration = Duration::from_millis(800);

/// The health paths; backlog and census are read when somebody looks, never by a timer.
pub(crate) fn router(shared: &Shared) -> Router {
    let health = shared.options.health.clone().router();
    health.layer(from_fn_with_state(Arc::clone(shared), measure))
}

async fn measure(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/readyz" => {
            let mut response = look(&shared, "/readyz", request, next).await;
            // A probe reads what is missing in plain words: no problem document takes their place.
            response.extensions_mut().insert(PassedOn);
            response
        }
        "/metrics" => look(&shared, "/metrics", request, next).await,
        _ => next.run(request).await,
    }
}

async fn look(shared: &Shared, path: &str, request: Request, next: Next) -> Response {
    if path == "/readyz" && shared.leaving.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "gateway: stopping\n").into_response();
    }
    let backlog = timeout(ANSWERS_WITHIN, shared.options.store.backlog());
    let backlog = backlog.await.unwrap_or_else(|_| {
        Err(carrel_store::Error::Unavailable {
            doing: "counting turns",
            source: "it does not answer in time".into(),
        })
    });
    match backlog {
        Ok((waiting, oldest)) => {
            let age = oldest.map(|oldest| shared.now().duration_since(oldest));
            let age = age.and_then(|age| Duration::try_from(age).ok());
            shared
                .options
                .metrics
                .backlog(waiting, age.unwrap_or_default());
            if path == "/metrics" {
                let count = shared.options.store.census();
                shared.options.metrics.census.refresh(count).await;
            }
            next.run(request).await
        }
        Err(error) if path == "/readyz" => {
            tracing::warn!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "store: it cannot be reached\n",
            )
                .into_response()
        }
        Err(_) => next.run(request).await,
    }
}
