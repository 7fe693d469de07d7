//! Whether the pod lives and may be given somebody, for whoever has no token: a kubelet. It is told nothing of a learner.

use std::sync::Arc;

use axum::extract::State;

use super::Refusal;
use crate::pod::Pod;

/// `GET /healthz`: whoever answers lives.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 once the shim has connected and the self-test has passed, then for the pod's life, whatever it does.
pub(super) async fn ready(State(pod): State<Arc<Pod>>) -> Result<&'static str, Refusal> {
    pod.check_able()?;
    Ok("ok\n")
}
