//! What gateways and the controller ask for operators. Each call carries a token of their own; no pod's opens anything here.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use carrel_protocol::problem::{Code, Problem};
use carrel_protocol::vault::{
    OfLearner, OfSnapshot, ResticAccess, RestoreWish, Restored, Rewrapped, Verified,
};

use super::{LearnerPath, Refusal, bearer};
use crate::Vault;

/// The caller is a gateway.
pub(super) struct Gateway;

impl FromRequestParts<Vault> for Gateway {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, vault: &Vault) -> Result<Self, Refusal> {
        let verifier = &vault.options().gateways;
        let known = bearer(&parts.headers)
            .is_some_and(|token| verifier.vault_admin(token, vault.now()).is_ok());
        if known {
            Ok(Self)
        } else {
            Err(Problem::new(Code::Unauthenticated, "").into())
        }
    }
}

type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Refusal> {
    let Json(body) = body.map_err(|rejection| super::contact::malformed(&rejection))?;
    Ok(body)
}

/// `POST /v1/admin/restore`
pub(super) async fn restore(
    _: Gateway,
    State(vault): State<Vault>,
    of: Body<OfSnapshot>,
) -> Result<Json<Restored>, Refusal> {
    let of = body(of)?;
    let head = vault.restore(&of.learner, &of.snapshot_id, None).await?;
    Ok(Json(Restored {
        generation: head.generation,
    }))
}

/// `POST /v1/learners/{id}/restore`: the controller's, for one learner who sleeps after one epoch, as its token says.
pub(super) async fn restore_asleep(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
    wish: Body<RestoreWish>,
) -> Result<Json<Restored>, Refusal> {
    let verifier = &vault.options().verifier;
    let claims = bearer(&headers)
        .and_then(|token| verifier.vault_restore(token, vault.now()).ok())
        .ok_or_else(|| Problem::new(Code::Unauthenticated, ""))?;
    if claims.sub.as_str() != learner {
        return Err(Problem::new(Code::Unauthenticated, "").into());
    }
    let wish = body(wish)?;
    let restored = vault.restore(&claims.sub, &wish.snapshot_id, Some(claims.ep));
    Ok(Json(Restored {
        generation: restored.await?.generation,
    }))
}

/// `POST /v1/admin/verify`
pub(super) async fn verify(
    _: Gateway,
    State(vault): State<Vault>,
    of: Body<OfSnapshot>,
) -> Result<Json<Verified>, Refusal> {
    let of = body(of)?;
    let found = vault.verify(&of.learner, Some(&of.snapshot_id)).await?;
    Ok(Json(Verified {
        damage: found.wrong,
    }))
}

/// `POST /v1/admin/remove`
pub(super) async fn remove(
    _: Gateway,
    State(vault): State<Vault>,
    of: Body<OfSnapshot>,
) -> Result<StatusCode, Refusal> {
    let of = body(of)?;
    vault.remove(&of.learner, &of.snapshot_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/admin/restic`
pub(super) async fn restic(
    _: Gateway,
    State(vault): State<Vault>,
    of: Body<OfLearner>,
) -> Result<Json<ResticAccess>, Refusal> {
    Ok(Json(vault.restic_access(&body(of)?.learner).await?))
}

/// `POST /v1/admin/erase`
pub(super) async fn erase(
    _: Gateway,
    State(vault): State<Vault>,
    of: Body<OfLearner>,
) -> Result<StatusCode, Refusal> {
    vault.erase(&body(of)?.learner).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/admin/rewrap`
pub(super) async fn rewrap(
    _: Gateway,
    State(vault): State<Vault>,
) -> Result<Json<Rewrapped>, Refusal> {
    Ok(Json(vault.rewrap_keys().await?))
}
