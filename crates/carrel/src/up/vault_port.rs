//! The vault as the gateway's operators see it.

use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_gateway::vault_admin::{Error, VaultAdmin};
use carrel_protocol::vault::{ResticAccess, Rewrapped, Verified};
use carrel_vault::Vault;

/// The vault of this process.
#[derive(Debug)]
pub(super) struct LocalVault(pub(super) Vault);

#[async_trait::async_trait]
impl VaultAdmin for LocalVault {
    async fn restore(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
    ) -> Result<Generation, Error> {
        let head = self.0.restore(learner, snapshot, None).await;
        head.map(|head| head.generation)
            .map_err(|error| translated("restoring a snapshot", error))
    }

    async fn verify(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<Verified, Error> {
        let found = self.0.verify(learner, Some(snapshot)).await;
        let found = found.map_err(|error| translated("verifying a snapshot", error))?;
        Ok(Verified {
            damage: found.wrong,
        })
    }

    async fn remove(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<(), Error> {
        let removed = self.0.remove(learner, snapshot).await;
        removed.map_err(|error| translated("removing a snapshot", error))
    }

    async fn erase(&self, learner: &LearnerId) -> Result<(), Error> {
        self.0
            .erase(learner)
            .await
            .map_err(|error| translated("erasing a learner", error))
    }

    async fn rewrap(&self) -> Result<Rewrapped, Error> {
        let done = self.0.rewrap_keys().await;
        done.map_err(|error| translated("wrapping keys anew", error))
    }

    async fn restic(&self, learner: &LearnerId) -> Result<ResticAccess, Error> {
        let access = self.0.restic_access(learner).await;
        access.map_err(|error| translated("opening a repository for restic", error))
    }
}

fn translated(doing: &'static str, error: carrel_vault::Error) -> Error {
    match error {
        carrel_vault::Error::NoLearner => Error::NoLearner,
        carrel_vault::Error::NoSnapshot => Error::NoSnapshot,
        conflict if conflict.problem().status == 409 => Error::Conflict(conflict.to_string()),
        other => Error::Unavailable {
            doing,
            source: Box::new(other),
        },
    }
}
