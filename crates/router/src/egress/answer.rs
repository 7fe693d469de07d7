//! What the egress port answers.

use carrel_llm::{Failure, Kind};
use carrel_wire::egress::Refusal;
use http::header::{ALLOW, CONTENT_TYPE, PROXY_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why no way out was opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum No {
    /// It asks for something else than a way out.
    #[error("this is the egress port: send CONNECT")]
    Method,
    /// Nobody knows who asks.
    #[error("an incarnation's own token is needed, as 'Proxy-Authorization: Bearer …'")]
    Unknown,
    /// The learner has as many open as it may.
    #[error("too many connections are open at once: close some, or use them again")]
    TooMany,
    /// The store refuses the caller, or does not answer.
    #[error("{}", .0.message)]
    Failure(Failure),
    /// The host is refused, or is not there.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl No {
    /// How it is counted.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Method | Self::Refused(Refusal::NoHost) => "malformed",
            Self::Unknown => "unauthenticated",
            Self::TooMany => "too_many",
            Self::Failure(failure) => match failure.kind {
                Kind::StaleEpoch => "stale_epoch",
                Kind::Unauthenticated => "unauthenticated",
                _ => "unavailable",
            },
            Self::Refused(Refusal::NotAllowed(_) | Refusal::NotPublic(_)) => "not_allowed",
            Self::Refused(Refusal::Unreachable(_)) => "unreachable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unknown => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Failure(failure) => match failure.kind {
                Kind::StaleEpoch => StatusCode::CONFLICT,
                Kind::Unauthenticated => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Refused(refusal) => refusal.status(),
        }
    }

    /// The answer that says so.
    pub(super) fn answer(&self) -> Answer {
        tracing::debug!(reason = %self, "a way out was refused");
        let mut answer = Response::new(Full::from(format!("carrel: {self}\n")));
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, text);
        match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("CONNECT"));
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        answer
    }
}

/// The answer after which the tunnel begins.
pub(super) fn open() -> Answer {
    Response::new(Full::default())
}
