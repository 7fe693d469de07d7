//! `GET /openapi.json`.

use axum::response::{IntoResponse as _, Response};
use http::header;

/// The document; a test holds it against every path that is served.
const DOCUMENT: &str = include_str!("../../openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
