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
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
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
    let too_large =
        || Refusal::new(Code::BodyTooLarge, format!("the body may have {limit} bytes at most"));
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
