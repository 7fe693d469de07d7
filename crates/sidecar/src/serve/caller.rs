//! Who calls: gateway or fleet, with a token of its own for this learner and this incarnation.

use axum::http::{HeaderMap, header};
use carrel_protocol::token::CallerClaims;
use carrel_protocol::{Code, Problem};

use crate::clock::now;
use crate::pod::Pod;

/// The token that a call carries.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| Problem::new(Code::Unauthenticated, "send a caller's token"))
}

/// Lets in who has a token for this pod.
pub(super) fn check(pod: &Pod, headers: &HeaderMap) -> Result<CallerClaims, Problem> {
    check_bearer(pod, bearer(headers)?)
}

/// Lets in a token for this pod. A blank pod is nobody's: any token of the fleet's keys may greet it.
pub(super) fn check_bearer(pod: &Pod, token: &str) -> Result<CallerClaims, Problem> {
    let claims = pod
        .callers()
        .caller(token, now())
        .map_err(|error| Problem::new(Code::Unauthenticated, error.to_string()))?;
    match pod.identity().map(|identity| &identity.assignment) {
        Some(ours) if (&ours.learner, ours.epoch) != (&claims.sub, claims.ep) => Err(Problem::new(
            Code::Misdirected,
            "ask the fleet where the learner is",
        )),
        _ => Ok(claims),
    }
}
