//! First contact, key, commit and reports of damage.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use carrel_protocol::problem::{Code, Problem};
use carrel_protocol::vault::{CommitAnswer, DamageReport, DataKey, Head};

use super::intake::discard;
use super::{LearnerPath, Reach, Refusal, claims, reach};
use crate::Vault;

/// `GET /v1/learners/{id}/head`
pub(super) async fn head(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
) -> Result<Json<Head>, Refusal> {
    let claims = claims(&vault, &headers, &learner)?;
    Ok(Json(vault.first_contact(&claims).await?))
}

/// `GET /v1/learners/{id}/key`
pub(super) async fn key(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
) -> Result<Json<DataKey>, Refusal> {
    let claims = claims(&vault, &headers, &learner)?;
    Ok(Json(vault.data_key(&claims).await?))
}

/// `PUT /v1/learners/{id}/head`
pub(super) async fn commit(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CommitAnswer>, Refusal> {
    let Reach { claims, repository } = match reach(&vault, &headers, &learner).await {
        Ok(reach) => reach,
        Err(refusal) => {
            discard(body).await;
            return Err(refusal);
        }
    };
    let content = vault.commits().take(body).await?;
    let malformed = |error: serde_json::Error| Problem::new(Code::InvalidBody, error.to_string());
    let request = serde_json::from_slice(&content.bytes).map_err(malformed)?;
    // While the commit waits for the storage others may send theirs.
    drop(content);
    let committed = vault.commit(&claims, repository, request).await?;
    Ok(Json(committed))
}

/// `POST /v1/learners/{id}/damage`
pub(super) async fn damage(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
    report: Result<Json<DamageReport>, JsonRejection>,
) -> Result<Json<Head>, Refusal> {
    let Reach { claims, repository } = reach(&vault, &headers, &learner).await?;
    let Json(report) = report.map_err(|rejection| malformed(&rejection))?;
    tracing::warn!(learner.id = %claims.sub, generation = %report.generation, "a snapshot could not be restored");
    let damage = vault.fall_back(&claims.sub, report.generation).await?;
    let head = damage.head().clone();
    let described = vault.describe(&claims.sub, head, repository).await?;
    Ok(Json(described))
}

pub(super) fn malformed(rejection: &JsonRejection) -> Problem {
    let code = match rejection.status().as_u16() {
        413 => Code::BodyTooLarge,
        _ => Code::InvalidBody,
    };
    Problem::new(code, rejection.body_text())
}
