//! Sends a request to a provider. Headers pass by allow-list; the provider's key is set here and goes nowhere else.

use std::time::Duration;

use bytes::Bytes;
use carrel_llm::{Dialect, Failure, Kind, Request};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use crate::metrics::CallResult;
use crate::options::{Provider, Target, Timeouts};

/// What a client may tell a provider.
const FORWARDED: [&str; 3] = ["anthropic-version", "anthropic-beta", "openai-beta"];
/// What a provider may tell a client; its rate limits are ours, not the client's.
const RETURNED: [&str; 4] = [
    "content-type",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
];
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// What is asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// An answer.
    Generate,
    /// The tokens of a request, in Anthropic's dialect.
    CountTokens,
}

/// A request to be sent.
pub(crate) struct Sending<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) path: Path,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) is_beta: bool,
}

/// What a provider answers.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) is_stream: bool,
    pub(crate) body: BoxStream<'static, Result<Bytes, Error>>,
    /// What must never be shown to a client.
    pub(crate) secret: Option<SecretString>,
}

/// Why there is no answer. Holds no URL, no header and no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing was sent.
    #[error("the provider cannot be reached")]
    Unreachable,
    /// The connection broke after the request was sent.
    #[error("the provider broke off")]
    Broken,
    /// It took too long.
    #[error("the provider did not answer in time")]
    Timeout,
    /// It refuses our key.
    #[error("the provider refuses the operator's key ({0})")]
    Credentials(StatusCode),
    /// It answers what no client can use.
    #[error("the provider answered with status {0}")]
    Status(StatusCode),
}

impl Error {
    /// Whether the provider may bill the call all the same.
    pub(crate) fn may_be_billed(self) -> bool {
        match self {
            Self::Unreachable | Self::Credentials(_) | Self::Status(_) => false,
            Self::Broken | Self::Timeout => true,
        }
    }

    pub(crate) fn result(self) -> CallResult {
        match self {
            Self::Credentials(_) | Self::Status(_) => CallResult::Refused,
            Self::Unreachable | Self::Broken | Self::Timeout => CallResult::Failed,
        }
    }

    /// What the client is told; an operator reads the log.
    pub(crate) fn failure(self, target: &Target) -> Failure {
        let kind = match self {
            Self::Unreachable | Self::Broken | Self::Status(_) => Kind::UpstreamUnreachable,
            Self::Timeout => Kind::UpstreamTimeout,
            Self::Credentials(_) => Kind::UpstreamCredentials,
        };
        if matches!(self, Self::Credentials(_)) {
            tracing::error!(model = %target, error = %self, "a provider's key must be replaced");
        } else {
            tracing::warn!(model = %target, error = %self, "a model call failed");
        }
        Failure::new(kind, format!("{self} (provider '{}')", target.provider))
    }
}

/// Sends it and waits for the head of the answer.
pub(crate) async fn send(
    client: &reqwest::Client,
    timeouts: &Timeouts,
    sending: &Sending<'_>,
    request: &Request,
) -> Result<Answer, Error> {
    let provider = sending.provider;
    let key = provider.key();
    let wait = if request.streams() {
        timeouts.first_byte
    } else {
        timeouts.whole_answer
    };
    let sent = client
        .post(url(provider, sending.path, sending.is_beta))
        .headers(headers(sending, key, request.streams()))
        .body(request.to_body())
        .send();
    let response = match tokio::time::timeout(wait, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() || error.is_builder() => {
            let error = error.without_url();
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                provider = provider.name,
                error,
                "a provider cannot be reached"
            );
            return Err(Error::Unreachable);
        }
        Ok(Err(error)) if error.is_timeout() => return Err(Error::Timeout),
        Ok(Err(_)) => return Err(Error::Broken),
        Err(_) => return Err(Error::Timeout),
    };
    let status = response.status();
    if matches!(status.as_u16(), 401..=403) {
        return Err(Error::Credentials(status));
    }
    if status.is_redirection() || status.is_informational() {
        return Err(Error::Status(status));
    }
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let is_stream =
        status.is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let returned = RETURNED.iter().filter_map(|name| {
        let value = response.headers().get(*name)?.clone();
        Some((HeaderName::from_static(name), value))
    });
    Ok(Answer {
        status,
        headers: returned.collect(),
        is_stream,
        secret: key.cloned(),
        body: response
            .bytes_stream()
            .map(|piece| piece.map_err(|_| Error::Broken))
            .boxed(),
    })
}

fn url(provider: &Provider, path: Path, is_beta: bool) -> String {
    let base = provider.base_url.trim_end_matches('/');
    match provider.dialect {
        Dialect::Anthropic => {
            let base = base.strip_suffix("/v1").unwrap_or(base);
            let path = match path {
                Path::Generate => "/v1/messages",
                Path::CountTokens => "/v1/messages/count_tokens",
            };
            let query = if is_beta { "?beta=true" } else { "" };
            format!("{base}{path}{query}")
        }
        Dialect::OpenAiChat => format!("{base}/chat/completions"),
    }
}

fn headers(sending: &Sending<'_>, key: Option<&SecretString>, streams: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        if let Some(value) = sending.headers.get(name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    let provider = sending.provider;
    if provider.dialect == Dialect::Anthropic {
        let version = HeaderValue::from_static(ANTHROPIC_VERSION);
        headers.entry("anthropic-version").or_insert(version);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = if streams {
        "text/event-stream"
    } else {
        "application/json"
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    // What passes is metered, so it must not be packed.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("carrel/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some(key) = key {
        // Anthropic itself knows API keys by this header; the others that speak its dialect want a bearer.
        let is_anthropic =
            provider.dialect == Dialect::Anthropic && provider.base_url.contains(".anthropic.com");
        let (name, value) = if is_anthropic {
            ("x-api-key", key.expose_secret().to_owned())
        } else {
            ("authorization", format!("Bearer {}", key.expose_secret()))
        };
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// The longest wait for the next piece of a body.
pub(crate) async fn next(
    body: &mut BoxStream<'static, Result<Bytes, Error>>,
    within: Duration,
) -> Option<Result<Bytes, Error>> {
    match tokio::time::timeout(within, body.next()).await {
        Ok(piece) => piece,
        Err(_) => Some(Err(Error::Timeout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers by which a provider knows us.
    fn known_by(dialect: Dialect, base_url: &str) -> [Option<String>; 2] {
        let provider = Provider {
            name: "one".to_owned(),
            dialect,
            base_url: base_url.to_owned(),
            keys: Vec::new(),
        };
        // What the client says of itself is not for the provider.
        let mut client = HeaderMap::new();
        for name in ["x-api-key", "authorization"] {
            client.insert(name, HeaderValue::from_static("the client's own"));
        }
        let sending = Sending {
            provider: &provider,
            path: Path::Generate,
            headers: &client,
            is_beta: false,
        };
        let sent = headers(&sending, Some(&"sk-1".into()), false);
        ["x-api-key", "authorization"].map(|name| {
            let value = sent.get(name)?;
            assert!(value.is_sensitive(), "{name}");
            Some(value.to_str().expect("text").to_owned())
        })
    }

    #[test]
    fn anthropic_itself_gets_its_key_in_a_header_of_its_own_and_all_others_a_bearer() {
        let own = [Some("sk-1".to_owned()), None];
        let bearer = [None, Some("Bearer sk-1".to_owned())];
        let at = |url| known_by(Dialect::Anthropic, url);
        assert_eq!(at("https://api.anthropic.com"), own);
        assert_eq!(at("https://openrouter.ai/api"), bearer);
        assert_eq!(at("http://127.0.0.1:8000"), bearer);
        let openai = known_by(Dialect::OpenAiChat, "https://api.openai.com/v1");
        assert_eq!(openai, bearer);
    }
}
