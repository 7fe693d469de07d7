//! A vault that restores by the store alone and notes what it was asked.

use std::sync::Mutex;

use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_gateway::vault_admin::{Error, VaultAdmin};
use carrel_protocol::vault::{ResticAccess, Rewrapped, Verified};
use carrel_store::SharedStore;
use carrel_store::heads::Restored;

use crate::world::now;

pub(crate) struct Noting {
    pub(crate) store: SharedStore,
    pub(crate) erased: Mutex<Vec<LearnerId>>,
    /// Erasing waits while somebody holds it.
    pub(crate) busy: tokio::sync::Mutex<()>,
}

impl Noting {
    async fn generation(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
    ) -> Result<Generation, Error> {
        let rows = self.store.generations(learner).await.expect("a store");
        let found = rows
            .iter()
            .find(|row| row.snapshot.as_ref() == Some(snapshot));
        found.map(|row| row.generation).ok_or(Error::NoSnapshot)
    }
}

#[async_trait::async_trait]
impl VaultAdmin for Noting {
    async fn restore(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
    ) -> Result<Generation, Error> {
        let to = self.generation(learner, snapshot).await?;
        let restored = self.store.restore(learner, to, None, now()).await;
        match restored.expect("a store") {
            Restored::Head(head) => Ok(head.generation),
            Restored::StaleEpoch { .. } | Restored::Nothing => Err(Error::NoSnapshot),
        }
    }

    async fn verify(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<Verified, Error> {
        self.generation(learner, snapshot).await?;
        Ok(Verified { damage: Vec::new() })
    }

    async fn remove(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<(), Error> {
        self.generation(learner, snapshot).await?;
        Err(Error::Conflict("it is the newest".to_owned()))
    }

    async fn restic(&self, learner: &LearnerId) -> Result<ResticAccess, Error> {
        Ok(ResticAccess {
            repository: format!("/objects/{learner}"),
            options: Vec::new(),
            password_file: format!("/passwords/{learner}"),
        })
    }

    async fn rewrap(&self) -> Result<Rewrapped, Error> {
        Ok(Rewrapped {
            rewrapped: 7,
            left: 2,
            failed: Vec::new(),
        })
    }

    async fn erase(&self, learner: &LearnerId) -> Result<(), Error> {
        let _free = self.busy.lock().await;
        self.erased.lock().expect("whole").push(learner.clone());
        let gone = self.store.erase_learner(learner, now()).await;
        gone.expect("a store");
        Ok(())
    }
}
