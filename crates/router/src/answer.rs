//! Answers of our own: errors in the dialect's shape, and the headers that every answer carries.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use carrel_llm::{Dialect, Failure};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

/// The id of a call, for the client, the logs and whoever compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(Uuid);

impl RequestId {
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "req_{}", self.0.simple())
    }
}

/// A call that ends with an error of ours, and headers that go with it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) failure: Failure,
    pub(crate) headers: Vec<(String, String)>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            headers: Vec::new(),
        }
    }
}

impl Refusal {
    pub(crate) fn into_response(self, dialect: Dialect, id: RequestId) -> Response {
        let status = StatusCode::from_u16(self.failure.kind.status())
            .expect("the statuses of failures are valid");
        let body = self.failure.body(dialect, &id.to_string()).to_string();
        let mut response = (status, Body::from(body)).into_response();
        set(&mut response, CONTENT_TYPE, "application/json");
        if let Some(retry) = self.failure.kind.should_retry() {
            set_named(&mut response, "x-should-retry", &retry.to_string());
        }
        for (name, value) in &self.headers {
            set_named(&mut response, name, value);
        }
        identify(&mut response, id);
        response
    }
}

/// Puts the call's id on an answer, for our own tools and for the dialects' clients.
pub(crate) fn identify(response: &mut Response, id: RequestId) {
    let id = id.to_string();
    for name in ["carrel-request-id", "request-id", "x-request-id"] {
        set_named(response, name, &id);
    }
    set(response, CACHE_CONTROL, "no-store");
}

pub(crate) fn set_named(response: &mut Response, name: &str, value: &str) {
    if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
        set(response, name, value);
    }
}

/// Sets a header; a value that no header can carry is left out.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
