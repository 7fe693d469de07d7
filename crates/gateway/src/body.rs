//! Reading a JSON body whole: bounded in size and time, unknown fields refused.

use std::time::Duration;

use axum::body::Body;
use carrel_protocol::Code;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::refusal::{Refusal, Result};

/// The most bytes of an ordinary body.
pub(crate) const ORDINARY_BYTES: usize = 256 * 1024;
/// A body must have come whole by then.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
const NEXT_PIECE_WITHIN: Duration = Duration::from_secs(10);

/// Reads a body of at most `limit` bytes as JSON.
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let detail = "the body must be JSON with 'Content-Type: application/json'";
        return Err(Refusal::new(Code::InvalidBody, detail));
    }
    let bytes = whole(headers, body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Code::InvalidBody, error.to_string()))
}

/// Like [`json`], but no body at all means the default.
pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T> {
    let bytes = whole(headers, body, ORDINARY_BYTES).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Code::InvalidBody, error.to_string()))
}

async fn whole(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>> {
    let too_large = || {
        Refusal::new(
            Code::BodyTooLarge,
            format!("the body may have {limit} bytes at most"),
        )
    };
    let declared = headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let slow = |_| Refusal::new(Code::RequestTimeout, "the body did not come in time");
    let mut body = Limited::new(body, limit);
    let read = async {
        let mut bytes = Vec::new();
        loop {
            let piece = tokio::time::timeout(NEXT_PIECE_WITHIN, body.frame());
            match piece.await.map_err(slow)? {
                None => return Ok(bytes),
                Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |d| d)),
                Some(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
                Some(Err(_)) => {
                    let detail = "the body broke off";
                    return Err(Refusal::new(Code::InvalidBody, detail));
                }
            }
        }
    };
    tokio::time::timeout(WITHIN, read).await.map_err(slow)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;
    use serde_json::Value;

    fn json_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let kind = http::HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        headers
    }

    async fn status_of(body: Body) -> u16 {
        match json::<Value>(&json_headers(), body, 100).await {
            Ok(_) => 200,
            Err(refusal) => refusal.into_response().status().as_u16(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_given_up() {
        let stuck = futures::stream::pending::<Result<&[u8], std::io::Error>>();
        assert_eq!(status_of(Body::from_stream(stuck)).await, 408);
        let drip = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, std::io::Error>(&b" "[..]), ()))
        });
        assert_eq!(status_of(Body::from_stream(drip)).await, 408);
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_it_is_whatever_it_says() {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(&b"          "[..]));
        assert_eq!(status_of(Body::from_stream(pieces)).await, 413);
        assert_eq!(status_of(Body::from("{}")).await, 200);
        let broken =
            futures::stream::once(async { Err::<&[u8], _>(std::io::Error::other("gone")) });
        assert_eq!(status_of(Body::from_stream(broken)).await, 400);
    }
}
