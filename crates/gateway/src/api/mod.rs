//! All paths, and what wraps them.

mod assets;
mod events;
mod messages;
mod openapi;
mod proxy;
mod proxy_headers;
mod sign_in;
mod tools;
mod turns;
mod view;
mod wake;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::admin;
use crate::envelope;
use crate::gateway::Shared;
use crate::paths::Paths;
use crate::refusal::Refusal;

pub(crate) use wake::nudge;

/// The whole router.
pub(crate) fn router(shared: &Shared) -> Router {
    all()
        .into_router()
        // For other gateways, and in no document for clients.
        .route("/internal/v1/learners/{id}/stream", get(events::relayed))
        .fallback(async || Refusal::not_found("there is no such path; see /openapi.json"))
        .with_state(Arc::clone(shared))
        .merge(admin::health::router(shared))
        .layer(CatchPanicLayer::new())
        .layer(from_fn_with_state(Arc::clone(shared), envelope::wrap))
}

/// The paths of API and pages, with parameters in braces, as the document at `/openapi.json` names them.
pub fn paths() -> Vec<String> {
    all().into_names()
}

fn all() -> Paths {
    learner_paths().merge(admin::paths()).merge(pages())
}

fn learner_paths() -> Paths {
    Paths::default()
        .route(
            "/v1/learners/{id}/messages",
            post(messages::post).get(turns::history),
        )
        .route("/v1/learners/{id}/events", get(events::events))
        .route("/v1/learners/{id}/turns/{turn_id}", get(turns::turn))
        .route(
            "/v1/learners/{id}/turns/{turn_id}/files/{n}",
            get(turns::file),
        )
        .route("/v1/learners/{id}/turns/{turn_id}/stop", post(turns::stop))
        .route("/v1/learners/{id}/wake", post(wake::wake))
        .route("/l/{id}", any(proxy::to_folder))
        .route("/l/{id}/", any(proxy::proxy))
        .route("/l/{id}/{*path}", any(proxy::proxy))
}

fn pages() -> Paths {
    Paths::default()
        .route("/", get(assets::chat))
        .route("/console", get(assets::console))
        .route("/assets/{*path}", get(assets::asset))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/sign-in", post(sign_in::learner))
        .route("/v1/session", get(sign_in::session).delete(sign_in::leave))
        .route("/console/sign-in", post(sign_in::operator))
}
