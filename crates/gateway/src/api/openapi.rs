//! `GET /openapi.json`.

use axum::response::{IntoResponse as _, Response};
use http::header;

/// The document; a test calls every path in it.
const DOCUMENT: &str = include_str!("../../openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
