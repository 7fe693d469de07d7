//! What a controller asks of a vault.

use std::time::Duration;

use carrel_protocol::Endpoint;
use carrel_protocol::vault::{RestoreWish, Restored};
use hyper::Method;

use crate::Trust;
pub use crate::call::Error;
use crate::call::{Call, parse};

/// How long an answer may take: a whole repository may be read for it.
const ANSWER: Duration = Duration::from_mins(15);

/// Takes an older state of a learner who sleeps after the token's epoch.
///
/// # Errors
/// When it gives no answer that counts; it may have been done.
pub async fn restore(
    vault: &Endpoint,
    trust: &Trust,
    token: &str,
    learner: &str,
    wish: &RestoreWish,
) -> Result<Restored, Error> {
    let call = Call {
        host: "vault",
        method: Method::POST,
        path: &format!("/v1/learners/{learner}/restore"),
        token: Some(token),
        body: serde_json::to_vec(wish).unwrap_or_default(),
    };
    let (status, body) = call.to(vault, trust, ANSWER).await?;
    parse(status, &body)
}
