//! Browsers: a single-use code becomes a session.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use carrel_core::LearnerId;
use carrel_protocol::Code;
use carrel_protocol::gateway::{Session, SignIn};
use carrel_store::access::{SecretKind, Subject};
use http::{HeaderMap, Method, StatusCode, header};

use crate::auth::{self, Caller, unauthenticated};
use crate::body::{ORDINARY_BYTES, json};
use crate::cookie::{self, LEARNER, OPERATOR};
use crate::gateway::{Gateway, Shared};
use crate::grant::grant;
use crate::outside::Outside;
use crate::refusal::{Refusal, Result};
use crate::secret;

/// A learner's browser stays signed in.
const LEARNER_SECONDS: i64 = 30 * 24 * 60 * 60;
/// The operator's signs in every day.
const OPERATOR_SECONDS: i64 = 12 * 60 * 60;

/// `POST /v1/sign-in`.
pub(super) async fn learner(
    State(shared): State<Shared>,
    outside: Option<Extension<Outside>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let sign_in: SignIn = json(&headers, body, ORDINARY_BYTES).await?;
    match redeem(&shared, &sign_in).await? {
        Some(Subject::Learner(learner)) => open(&shared, outside, Subject::Learner(learner)).await,
        Some(Subject::Operator) | None => Err(used_up()),
    }
}

/// `POST /console/sign-in`.
pub(super) async fn operator(
    State(shared): State<Shared>,
    outside: Option<Extension<Outside>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let sign_in: SignIn = json(&headers, body, ORDINARY_BYTES).await?;
    let token = sign_in.token.as_deref();
    if token.is_some_and(|token| secret::matches(token, &shared.options.admin_token_hash)) {
        return open(&shared, outside, Subject::Operator).await;
    }
    match redeem(&shared, &sign_in).await? {
        Some(Subject::Operator) => open(&shared, outside, Subject::Operator).await,
        Some(Subject::Learner(_)) | None => Err(used_up()),
    }
}

async fn redeem(gateway: &Gateway, sign_in: &SignIn) -> Result<Option<Subject>> {
    let Some(code) = &sign_in.code else {
        return Ok(None);
    };
    let hash = secret::hash_of(code);
    Ok(gateway.options.store.redeem(hash, gateway.now()).await?)
}

fn used_up() -> Refusal {
    let detail = "the code is not valid, was used or has expired: ask for a new link";
    Refusal::new(Code::Unauthenticated, detail)
}

async fn open(
    gateway: &Gateway,
    outside: Option<Extension<Outside>>,
    subject: Subject,
) -> Result<Response> {
    let (name, seconds) = match &subject {
        Subject::Learner(_) => (LEARNER, LEARNER_SECONDS),
        Subject::Operator => (OPERATOR, OPERATOR_SECONDS),
    };
    let granted = grant(gateway, SecretKind::Session, &subject, seconds).await?;
    let (session, _) = granted.ok_or_else(used_up)?;
    let learner: Option<LearnerId> = match subject {
        Subject::Learner(learner) => Some(learner),
        Subject::Operator => None,
    };
    let mut response = Json(Session { learner }).into_response();
    let secure = is_secure(gateway, outside);
    if let Some(cookie) = cookie::set(name, &session, seconds, secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn is_secure(gateway: &Gateway, outside: Option<Extension<Outside>>) -> bool {
    gateway.options.public_url.starts_with("https://")
        || outside.is_some_and(|Extension(outside)| outside.https)
}

/// `GET /v1/session`.
pub(super) async fn session(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Json<Session>> {
    let caller = auth::caller(&shared, &Method::GET, &headers).await?;
    if caller == Caller::default() {
        return Err(unauthenticated());
    }
    Ok(Json(Session {
        learner: caller.learner.map(|(learner, _)| learner),
    }))
}

/// `DELETE /v1/session`: what let the caller in is worthless from now on, and the browser forgets it.
pub(super) async fn leave(
    State(shared): State<Shared>,
    outside: Option<Extension<Outside>>,
    headers: HeaderMap,
) -> Result<Response> {
    let caller = auth::caller(&shared, &Method::DELETE, &headers).await?;
    for pass in caller.passes() {
        pass.revoke(&shared).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    for name in [LEARNER, OPERATOR] {
        if let Some(cookie) = cookie::set(name, "", 0, is_secure(&shared, outside)) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    Ok(response)
}
