//! What passes between us and a server: a request is bounded by its progress, and not by the time that all of it takes; and of a
//! refusal no more is heard than its code and message. The rest may quote the request, with the keys that were lent for it.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyStream, StreamBody};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use tokio::time::timeout;

/// When nothing has come for so long nothing will.
const QUIET: Duration = Duration::from_secs(30);
/// Bytes a second of the slowest line that serves.
const SLOWEST: u64 = 64 << 10;
/// More of a refusal is not read.
const REFUSAL_BYTES: usize = 64 << 10;
/// More of a server's message says nothing more to people.
const MESSAGE_CHARACTERS: usize = 300;
/// A word of a signature or a token is longer.
const WORD_BYTES: usize = 16;

/// What so many bytes may take on the slowest line.
pub(super) fn passage(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// Makes clients whose requests go through here.
#[derive(Debug, Default)]
pub(super) struct Wire;

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { inner }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = request.body().content_length() as u64;
        let keys = keys(&request);
        // A server also refuses to copy after it began to answer that it did.
        let is_content = request.method() != "PUT";
        let answer = timeout(QUIET + passage(sent), self.inner.execute(request)).await;
        let (head, body) = answer.map_err(|_| late())??.into_parts();
        let body = steady(body);
        if head.status.is_success() && is_content {
            return Ok(HttpResponse::from_parts(head, body));
        }
        let text = match beginning(body).await {
            Err(error) if head.status.is_success() => return Err(error),
            text => text.unwrap_or_default(),
        };
        let body = match told(&text, &keys) {
            None if head.status.is_success() => text,
            told => told.unwrap_or_default(),
        };
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

fn late() -> HttpError {
    let told = "the server has been quiet for too long";
    HttpError::new(HttpErrorKind::Timeout, std::io::Error::other(told))
}

/// A body that ends with an error when nothing more of it comes.
fn steady(body: HttpResponseBody) -> HttpResponseBody {
    let frames = stream::unfold(Some(BodyStream::new(body)), |frames| async {
        let mut frames = frames?;
        match timeout(QUIET, frames.next()).await {
            Ok(frame) => frame.map(|frame| (frame, Some(frames))),
            Err(_) => Some((Err(late()), None)),
        }
    });
    HttpResponseBody::new(StreamBody::new(frames))
}

/// As much of a body as a refusal has.
async fn beginning(body: HttpResponseBody) -> Result<String, HttpError> {
    let mut pieces = body.bytes_stream();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece?);
        if text.len() > REFUSAL_BYTES {
            text.truncate(REFUSAL_BYTES);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A server's own words for a refusal, without those that quote what we sent as a key; `None`: it is no refusal, or not one that
/// S3's protocol knows.
fn told(text: &str, keys: &[String]) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = rest.split_once(&format!("</{name}>"))?;
        let is_key = keys.iter().any(|key| inner.contains(key.as_str()));
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let inner = inner.chars().take(MESSAGE_CHARACTERS).map(clean);
        Some(if is_key {
            String::new()
        } else {
            inner.collect()
        })
    };
    let (code, message) = (element("Code")?, element("Message").unwrap_or_default());
    Some(format!("{code}: {message}"))
}

/// What of a request opens something: parts of its signature, and tokens.
fn keys(request: &HttpRequest) -> Vec<String> {
    let secret = [
        "authorization",
        "x-amz-security-token",
        "x-aws-ec2-metadata-token",
    ];
    let values = secret.into_iter().filter_map(|name| {
        let value = request.headers().get(name)?;
        value.to_str().ok()
    });
    values
        .flat_map(|value| value.split([' ', ',', '=']))
        .filter(|word| word.len() > WORD_BYTES)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
