//! What let someone in, looked at again while what they opened stays open: streams and proxied connections outlive the
//! request that was checked.

use std::sync::Arc;

use carrel_core::LearnerId;
use carrel_store::Result;
use carrel_store::access::{SecretHash, SecretKind, Subject};

use crate::gateway::{Gateway, Shared};
use crate::stream::Hub;

/// What let someone in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The admin token: good for as long as this process runs.
    Admin,
    /// A token or a session that the store keeps.
    Secret(SecretHash, SecretKind),
}

impl Pass {
    /// Makes it worthless from now on.
    pub(crate) async fn revoke(&self, gateway: &Gateway) -> Result<()> {
        match self {
            Self::Admin => Ok(()),
            Self::Secret(hash, kind) => gateway.options.store.revoke(*hash, *kind).await,
        }
    }

    /// Whether it still opens what is this learner's.
    async fn opens(&self, gateway: &Gateway, learner: &LearnerId) -> Result<bool> {
        let store = &gateway.options.store;
        let subject = match self {
            Self::Admin => Some(Subject::Operator),
            Self::Secret(hash, kind) => store.subject(*hash, *kind, gateway.now()).await?,
        };
        match subject {
            None => Ok(false),
            Some(Subject::Learner(_)) => Ok(true),
            // A learner's own pass ends with it; the operator's does not.
            Some(Subject::Operator) => store.is_open(learner).await,
        }
    }
}

/// Returns when what was opened by `pass` must end: it was revoked, here or by another process, or has expired, or the
/// learner is being erased, or this process ends. Looks again at each hint; without one, at the dispatcher's polls.
pub(crate) async fn over(shared: Shared, pass: Pass, hub: Arc<Hub>) {
    let mut hints = hub.hints();
    let looks = async {
        loop {
            hints.mark_unchanged();
            match pass.opens(&shared, hub.learner()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "a pass cannot be looked at"),
            }
            if hints.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = shared.cancel.cancelled() => {}
        () = hub.closed().cancelled() => {}
        () = looks => {}
    }
}
