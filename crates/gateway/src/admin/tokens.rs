//! What lets a learner in: tokens for programs, links for people.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use carrel_core::LearnerId;
use carrel_protocol::Code;
use carrel_protocol::gateway::{CreateToken, Link, Token};
use carrel_store::access::{SecretKind, Subject};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::learners::find;
use crate::auth::Managed;
use crate::body::json_or_default;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};

const TOKEN_SECONDS: u32 = 43_200;
const LONGEST_SECONDS: u32 = 90 * 24 * 60 * 60;
/// A link is meant to be used soon.
const LINK_SECONDS: u32 = 24 * 60 * 60;

pub(super) async fn create(
    State(shared): State<Shared>,
    Managed(learner): Managed,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Token>> {
    let asked: CreateToken = json_or_default(&headers, body).await?;
    let seconds = asked.ttl_seconds.unwrap_or(TOKEN_SECONDS);
    if !(1..=LONGEST_SECONDS).contains(&seconds) {
        let detail = format!("'ttlSeconds' must be from 1 to {LONGEST_SECONDS}");
        return Err(Refusal::new(Code::InvalidBody, detail));
    }
    let subject = Subject::Learner(learner);
    let (token, expires_time) = grant(&shared, &subject, SecretKind::Token, seconds).await?;
    Ok(Json(Token {
        token,
        expires_time,
    }))
}

/// The code is behind a `#`: browsers send that to no server, so it is in no log.
pub(super) async fn link(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Json<Link>> {
    chat_link(&shared, learner).await.map(Json)
}

/// A link that signs a browser in as a learner, once.
pub(crate) async fn chat_link(gateway: &Gateway, learner: LearnerId) -> Result<Link> {
    let subject = Subject::Learner(learner);
    let (code, expires_time) = grant(gateway, &subject, SecretKind::Code, LINK_SECONDS).await?;
    let url = format!("{}/#code={code}", gateway.options.public_url);
    Ok(Link { url, expires_time })
}

/// A link that signs a browser in as the operator, once.
pub(crate) async fn console_link(gateway: &Gateway) -> Result<Link> {
    let (code, expires_time) =
        grant(gateway, &Subject::Operator, SecretKind::Code, LINK_SECONDS).await?;
    let url = format!("{}/console#code={code}", gateway.options.public_url);
    Ok(Link { url, expires_time })
}

async fn grant(
    gateway: &Gateway,
    subject: &Subject,
    kind: SecretKind,
    seconds: u32,
) -> Result<(String, Timestamp)> {
    let granted = crate::grant::grant(gateway, kind, subject, seconds.into()).await?;
    granted.ok_or_else(Refusal::no_learner)
}

/// Revokes tokens, links and sessions.
pub(super) async fn revoke(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<StatusCode> {
    find(&shared, &learner).await?;
    shared.options.store.revoke_all(&learner).await?;
    Ok(StatusCode::NO_CONTENT)
}
