//! Who asks: by bearer token, or by a browser's session cookie.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use carrel_core::LearnerId;
use carrel_protocol::Code;
use carrel_store::access::{SecretKind, Subject};
use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::cookie::{self, LEARNER, OPERATOR};
use crate::gateway::{Gateway, Shared};
use crate::options::Options;
use crate::pass::Pass;
use crate::refusal::{Refusal, Result};
use crate::secret;

/// Says that a request with a cookie was made by our own page's script.
const BY_SCRIPT: &str = "x-carrel-request";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Caller {
    /// As this learner, let in by this.
    pub(crate) learner: Option<(LearnerId, Pass)>,
    /// As the operator, let in by this.
    pub(crate) operator: Option<Pass>,
}

impl Caller {
    fn of(subject: Subject, pass: Pass) -> Self {
        match subject {
            Subject::Learner(learner) => Self {
                learner: Some((learner, pass)),
                operator: None,
            },
            Subject::Operator => Self {
                learner: None,
                operator: Some(pass),
            },
        }
    }

    /// Everything that let the caller in.
    pub(crate) fn passes(self) -> impl Iterator<Item = Pass> {
        let learner = self.learner.map(|(_, pass)| pass);
        learner.into_iter().chain(self.operator)
    }
}

/// Finds out who asks; nobody is an answer too.
///
/// # Errors
/// When a token is not valid, or a request that changes something came by cookie without our header.
pub(crate) async fn caller(
    gateway: &Gateway,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Caller> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return by_token(gateway, value.to_str().unwrap_or_default()).await;
    }
    let caller = by_cookie(gateway, headers).await?;
    let known = caller != Caller::default();
    if known && !method.is_safe() && !headers.contains_key(BY_SCRIPT) {
        let detail =
            "a request by cookie that changes something needs the header 'X-Carrel-Request: 1'";
        return Err(Refusal::new(Code::Forbidden, detail));
    }
    Ok(caller)
}

async fn by_token(gateway: &Gateway, value: &str) -> Result<Caller> {
    let token = value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let invalid = || {
        Refusal::new(
            Code::Unauthenticated,
            "the token is not valid or has expired",
        )
    };
    let token = token.ok_or_else(invalid)?;
    if secret::matches(token, &gateway.options.admin_token_hash) {
        return Ok(Caller::of(Subject::Operator, Pass::Admin));
    }
    let (hash, kind) = (secret::hash_of(token), SecretKind::Token);
    let store = &gateway.options.store;
    let subject = store.subject(hash, kind, gateway.now()).await?;
    let subject = subject.ok_or_else(invalid)?;
    Ok(Caller::of(subject, Pass::Secret(hash, kind)))
}

async fn by_cookie(gateway: &Gateway, headers: &HeaderMap) -> Result<Caller> {
    let mut caller = Caller::default();
    for name in [LEARNER, OPERATOR] {
        let Some(value) = cookie::find(headers, name) else {
            continue;
        };
        let (hash, kind) = (secret::hash_of(value), SecretKind::Session);
        let pass = Pass::Secret(hash, kind);
        let store = &gateway.options.store;
        match store.subject(hash, kind, gateway.now()).await? {
            Some(Subject::Learner(learner)) if name == LEARNER => {
                caller.learner = Some((learner, pass));
            }
            Some(Subject::Operator) if name == OPERATOR => caller.operator = Some(pass),
            Some(_) | None => {}
        }
    }
    Ok(caller)
}

pub(crate) fn unauthenticated() -> Refusal {
    let detail = "send 'Authorization: Bearer …' or sign in with a link";
    Refusal::new(Code::Unauthenticated, detail)
}

/// Whether there is a learner, also one that the fleet has known for a moment only.
async fn knows(gateway: &Gateway, learner: &LearnerId) -> Result<bool> {
    let Options { store, fleet, .. } = &gateway.options;
    Ok(store.is_open(learner).await? || fleet.enrol(learner).await?)
}

async fn learner_in_path(parts: &mut Parts) -> Option<LearnerId> {
    let path: Path<HashMap<String, String>> = Path::from_request_parts(parts, &()).await.ok()?;
    path.get("id")?.parse().ok()
}

/// The learner that the path names, asked for by itself or by the operator, and what let them in.
#[derive(Debug)]
pub(crate) struct Own(pub(crate) LearnerId, pub(crate) Pass);

impl FromRequestParts<Shared> for Own {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self> {
        let caller = caller(shared, &parts.method, &parts.headers).await?;
        if caller == Caller::default() {
            return Err(unauthenticated());
        }
        let learner = learner_in_path(parts)
            .await
            .ok_or_else(Refusal::no_learner)?;
        if let Some((itself, pass)) = caller.learner
            && itself == learner
        {
            return Ok(Self(learner, pass));
        }
        let pass = caller.operator.ok_or_else(Refusal::no_learner)?;
        // A learner's own token ends with it; the operator's does not.
        if knows(shared, &learner).await? {
            Ok(Self(learner, pass))
        } else {
            Err(Refusal::no_learner())
        }
    }
}

/// The learner that the path names, asked for by itself only, and what let it in: the operator's session never reaches an
/// agent.
#[derive(Debug)]
pub(crate) struct Itself(pub(crate) LearnerId, pub(crate) Pass);

impl FromRequestParts<Shared> for Itself {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self> {
        let caller = caller(shared, &parts.method, &parts.headers).await?;
        let Some((itself, pass)) = caller.learner else {
            let detail = "an agent's pages are for its learner: use a token of the learner";
            return Err(if caller.operator.is_some() {
                Refusal::new(Code::Forbidden, detail)
            } else {
                unauthenticated()
            });
        };
        let learner = learner_in_path(parts).await;
        learner
            .filter(|learner| *learner == itself)
            .map(|learner| Self(learner, pass))
            .ok_or_else(Refusal::no_learner)
    }
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Operator;

impl FromRequestParts<Shared> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self> {
        let caller = caller(shared, &parts.method, &parts.headers).await?;
        match caller {
            Caller {
                operator: Some(_), ..
            } => Ok(Self),
            Caller {
                learner: Some(_), ..
            } => Err(Refusal::new(Code::Forbidden, "this is for the operator")),
            Caller { .. } => Err(unauthenticated()),
        }
    }
}

/// The operator, and the learner that the path names.
#[derive(Debug)]
pub(crate) struct Managed(pub(crate) LearnerId);

impl FromRequestParts<Shared> for Managed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self> {
        Operator::from_request_parts(parts, shared).await?;
        let learner = learner_in_path(parts).await;
        let learner = learner.ok_or_else(Refusal::no_learner)?;
        // What is done to it is another's to allow: one that is being erased is managed, too.
        knows(shared, &learner).await?;
        Ok(Self(learner))
    }
}
