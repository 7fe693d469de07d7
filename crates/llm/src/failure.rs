//! An error in the shape of the dialect that was asked, with the headers that make the clients of that dialect do the
//! right thing.

use serde_json::{Value, json};

use crate::dialect::Dialect;

/// What went wrong; closed, for status, metric label and retry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::EnumIter, strum::IntoStaticStr, strum::Display,
)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// The request is wrong.
    InvalidRequest,
    /// Nobody that we know.
    Unauthenticated,
    /// No such model or path, or not for this caller.
    NotFound,
    /// An incarnation that another has replaced.
    StaleEpoch,
    /// The body is over the limit.
    TooLarge,
    /// The budget is spent.
    BudgetExhausted,
    /// The provider refuses our own credential.
    UpstreamCredentials,
    /// The provider cannot be reached, or broke off.
    UpstreamUnreachable,
    /// The provider did not answer in time.
    UpstreamTimeout,
    /// The store is away.
    Unavailable,
    /// Our own fault.
    Internal,
}

/// An error for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: Kind,
    /// In words, without secrets.
    pub message: String,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::StaleEpoch => 409,
            Self::TooLarge => 413,
            Self::BudgetExhausted => 429,
            Self::UpstreamCredentials | Self::UpstreamUnreachable => 502,
            Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
            Self::Internal => 500,
        }
    }

    /// What `x-should-retry` says, where the clients' own rule would be wrong.
    pub fn should_retry(self) -> Option<bool> {
        match self {
            Self::Unauthenticated
            | Self::StaleEpoch
            | Self::BudgetExhausted
            | Self::UpstreamCredentials => Some(false),
            Self::InvalidRequest
            | Self::NotFound
            | Self::TooLarge
            | Self::UpstreamUnreachable
            | Self::UpstreamTimeout
            | Self::Unavailable
            | Self::Internal => None,
        }
    }

    fn anthropic_type(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Unauthenticated => "authentication_error",
            Self::NotFound => "not_found_error",
            Self::StaleEpoch => "conflict_error",
            Self::TooLarge => "request_too_large",
            Self::BudgetExhausted => "billing_error",
            Self::Unavailable => "overloaded_error",
            Self::UpstreamTimeout => "timeout_error",
            Self::UpstreamCredentials | Self::UpstreamUnreachable | Self::Internal => "api_error",
        }
    }

    fn openai_type(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::NotFound | Self::TooLarge | Self::StaleEpoch => {
                "invalid_request_error"
            }
            Self::Unauthenticated => "authentication_error",
            Self::BudgetExhausted => "insufficient_quota",
            Self::Unavailable => "overloaded",
            Self::UpstreamTimeout
            | Self::UpstreamCredentials
            | Self::UpstreamUnreachable
            | Self::Internal => "server_error",
        }
    }

    fn openai_code(self) -> &'static str {
        match self {
            Self::Unauthenticated => "invalid_api_key",
            Self::NotFound => "model_not_found",
            Self::BudgetExhausted => "insufficient_quota",
            other => other.into(),
        }
    }
}

impl Failure {
    /// An error for a client.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The body.
    pub fn body(&self, dialect: Dialect, request_id: &str) -> Value {
        let reason: &'static str = self.kind.into();
        match dialect {
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {"type": self.kind.anthropic_type(), "message": self.message, "details": {"reason": reason}},
                "request_id": request_id,
            }),
            Dialect::OpenAiChat => json!({
                "error": {"message": self.message, "type": self.kind.openai_type(), "param": null, "code": self.kind.openai_code()},
            }),
        }
    }

    /// The event that ends a stream which has begun.
    pub fn event(&self, dialect: Dialect, request_id: &str) -> String {
        let body = self.body(dialect, request_id);
        match dialect {
            Dialect::Anthropic => format!("event: error\ndata: {body}\n\n"),
            Dialect::OpenAiChat => format!("data: {body}\n\n"),
        }
    }
}

/// What keeps a silent stream alive and means nothing.
pub fn ping(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Dialect::OpenAiChat => ": ping\n\n",
    }
}
