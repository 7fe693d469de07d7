//! A refused request: a problem document, with what tells the client when or how to come back.

use axum::response::{IntoResponse, Response};
use carrel_protocol::fleet;
use carrel_protocol::{Code, Problem};
use http::{HeaderValue, StatusCode, header};

use crate::vault_admin;

/// When to try again while something is away.
const AWAY_SECONDS: u32 = 2;

/// A refused request. The body is written by [`crate::envelope`], which knows the request's id.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Problem,
    retry_after_seconds: Option<u32>,
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            problem: Problem::new(code, detail),
            retry_after_seconds: (code == Code::Unavailable).then_some(AWAY_SECONDS),
        }
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, what)
    }

    pub(crate) fn no_learner() -> Self {
        Self::not_found("there is no such learner")
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        refusal.problem
    }
}

impl From<carrel_store::Error> for Refusal {
    fn from(error: carrel_store::Error) -> Self {
        match &error {
            carrel_store::Error::Unavailable { .. } => {
                tracing::warn!(%error, "the store is away");
                Self::new(Code::Unavailable, "the store cannot be reached")
            }
            carrel_store::Error::Corrupt { .. }
            | carrel_store::Error::NotAllowed { .. }
            | carrel_store::Error::Schema { .. } => {
                tracing::error!(%error, "the store cannot be used");
                Self::new(Code::Internal, "")
            }
        }
    }
}

impl From<fleet::Error> for Refusal {
    fn from(error: fleet::Error) -> Self {
        match &error {
            fleet::Error::NoLearner(_) => Self::no_learner(),
            fleet::Error::Conflict(why) => Self::new(Code::Conflict, why),
            fleet::Error::Unavailable { .. } => {
                tracing::warn!(%error, "the fleet is away");
                Self::new(Code::Unavailable, "the fleet cannot be reached")
            }
        }
    }
}

impl From<vault_admin::Error> for Refusal {
    fn from(error: vault_admin::Error) -> Self {
        match error {
            vault_admin::Error::NoLearner => Self::no_learner(),
            vault_admin::Error::NoSnapshot => Self::not_found("there is no such snapshot"),
            vault_admin::Error::Conflict(why) => Self::new(Code::Conflict, why),
            vault_admin::Error::Unavailable { .. } => {
                tracing::warn!(%error, "the vault is away");
                Self::new(Code::Unavailable, "the vault cannot be reached")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(self.problem);
        response
    }
}
