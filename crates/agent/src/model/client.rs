//! The HTTP call to the model: one request, one stream of events. Tries nothing twice.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER};
use secrecy::{ExposeSecret as _, SecretString};
use sse_stream::SseStream;

use super::failure::Advice;
use super::{Event, Failure, Request};

const VERSION: &str = "2023-06-01";
/// Connecting is on loopback: it works at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which an answer is given up. The router pings every 15 seconds.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest body of a refusal that is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// A model's address and the token for it.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: SecretString,
}

impl Client {
    /// A client for the model behind `base_url` (without `/v1`).
    pub(crate) fn new(base_url: &str, token: SecretString) -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            // The environment's proxy is for what the learner's files may fetch, never for the model.
            .no_proxy()
            .http1_only();
        // Loading the system's certificates takes longer than all else at start, and the
        // sidecar speaks plain HTTP on loopback.
        let builder = if base_url.starts_with("http://") {
            builder.tls_certs_only([])
        } else {
            builder
        };
        Ok(Self {
            http: builder.build()?,
            url: format!("{}/v1/messages", base_url.trim_end_matches('/')),
            token,
        })
    }

    /// Sends the request; the stream ends with the answer or with its first failure.
    ///
    /// # Cancel safety
    /// Dropping the future or the stream closes the connection, which cancels the call.
    pub(crate) async fn stream(
        &self,
        request: &Request<'_>,
    ) -> Result<impl Stream<Item = Result<Event, Failure>> + Unpin + use<>, Failure> {
        let response = self
            .http
            .post(&self.url)
            .bearer_auth(self.token.expose_secret())
            .header("anthropic-version", VERSION)
            .header(ACCEPT, "text/event-stream")
            .json(request)
            .send()
            .await
            .map_err(|error| unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let advice = advice(response.headers());
            let body = refusal_body(response).await;
            return Err(Failure::from_response(status.as_u16(), advice, &body));
        }
        let events = SseStream::from_bytes_stream(response.bytes_stream());
        Ok(Box::pin(events.filter_map(async |event| match event {
            Ok(event) => event.data.map(|data| parse(&data)),
            Err(error) => Some(Err(Failure::Unreachable(error.to_string()))),
        })))
    }
}

fn parse(data: &str) -> Result<Event, Failure> {
    serde_json::from_str(data)
        .map_err(|error| Failure::Unreachable(format!("an event is not of the dialect: {error}")))
}

fn unreachable(error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    Failure::Unreachable(what.to_owned())
}

async fn refusal_body(response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        let room = MAX_REFUSAL_BYTES - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == MAX_REFUSAL_BYTES {
            break;
        }
    }
    body
}

fn advice(headers: &HeaderMap) -> Advice {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Advice {
        should_retry: match text("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
        retry_after: text(RETRY_AFTER.as_str())
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
    }
}
