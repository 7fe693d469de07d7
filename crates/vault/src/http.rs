//! The vault's HTTP interface: who calls, and which call is whose.

mod admin;
mod contact;
mod files;
mod intake;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use carrel_core::RepositoryId;
use carrel_protocol::problem::{Code, Problem};
use carrel_protocol::token::{Audience, LearnerClaims};

use crate::Vault;

pub(crate) use intake::Intake;

/// The most of a call that carries neither a pack nor a reply.
const BODY_BYTES: usize = 64 << 10;
/// In so many seconds a call that could not be served is worth another try.
const AGAIN: &str = "2";

/// The vault's service.
pub fn router(vault: Vault) -> Router {
    Router::new()
        .route(
            "/v1/learners/{learner}/head",
            get(contact::head).put(contact::commit),
        )
        .route("/v1/learners/{learner}/key", get(contact::key))
        .route("/v1/learners/{learner}/damage", post(contact::damage))
        .route(
            "/v1/learners/{learner}/restore",
            post(admin::restore_asleep),
        )
        .route("/v1/admin/restore", post(admin::restore))
        .route("/v1/admin/verify", post(admin::verify))
        .route("/v1/admin/remove", post(admin::remove))
        .route("/v1/admin/restic", post(admin::restic))
        .route("/v1/admin/erase", post(admin::erase))
        .route("/v1/admin/rewrap", post(admin::rewrap))
        .route("/restic/{learner}/", post(files::create))
        .route(
            "/restic/{learner}/config",
            get(files::config).post(files::refuse).delete(files::refuse),
        )
        .route("/restic/{learner}/{kind}/", get(files::list))
        .route(
            "/restic/{learner}/{kind}/{name}",
            get(files::read).post(files::write).delete(files::remove),
        )
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(vault.clone(), counted))
        .with_state(vault)
}

async fn counted(State(vault): State<Vault>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let snapshots = &vault.options().snapshots;
    snapshots.answered(response.status().as_u16());
    response
}

/// A refusal.
pub(crate) struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        let problem = error.problem();
        if problem.status >= 500 {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a call to the vault failed"
            );
        }
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        let again = (self.0.code == Code::Unavailable).then_some([(RETRY_AFTER, AGAIN)]);
        (status, kind, again, body).into_response()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

/// What the caller's token says; it must be for the learner in the path.
fn claims(vault: &Vault, headers: &HeaderMap, learner: &str) -> Result<LearnerClaims, Refusal> {
    let claims = bearer(headers)
        .and_then(|token| {
            let verifier = &vault.options().verifier;
            verifier.learner(token, Audience::Vault, vault.now()).ok()
        })
        .ok_or_else(|| Problem::new(Code::Unauthenticated, ""))?;
    if claims.sub.as_str() == learner {
        Ok(claims)
    } else {
        Err(Problem::new(Code::Forbidden, "").into())
    }
}

/// Who may use a repository and move its head: the bearer of a current token of its learner.
struct Reach {
    claims: LearnerClaims,
    repository: RepositoryId,
}

async fn reach(vault: &Vault, headers: &HeaderMap, learner: &str) -> Result<Reach, Refusal> {
    let claims = claims(vault, headers, learner)?;
    let (_, repository) = vault.contact(&claims.sub, claims.ep).await?;
    Ok(Reach { claims, repository })
}

type LearnerPath = Path<String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_come_again_is_told_when() {
        for (code, again) in [(Code::Unavailable, Some(AGAIN)), (Code::Internal, None)] {
            let answer = Refusal(Problem::new(code, "")).into_response();
            let told = answer.headers().get(RETRY_AFTER);
            assert_eq!(told.map(|value| value.to_str().unwrap()), again);
        }
    }
}
