//! What operators do with snapshots: list, verify, restore, remove, erase, re-wrap keys.

use carrel_core::{Epoch, Generation, LearnerId, RepositoryId, SnapshotId, TurnId};
use carrel_protocol::vault::Rewrapped;
use carrel_store::SharedStore;
use carrel_store::heads::{GenerationRow, Head, Restored};
use jiff::Timestamp;
use serde::Serialize;

use crate::{Error, Keyring, Vault};

/// A committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Its number.
    pub generation: Generation,
    /// Its name.
    pub snapshot_id: SnapshotId,
    /// When it was committed.
    pub time: Timestamp,
    /// The turn that it ended, if it ended one.
    pub turn_id: Option<TurnId>,
    /// Whether it was proved damaged.
    pub damaged: bool,
    /// Whether it is the head.
    pub newest: bool,
}

/// What a whole reading of a snapshot found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The generation.
    pub generation: Generation,
    /// Its snapshot.
    pub snapshot_id: SnapshotId,
    /// Whether all of it can be restored.
    pub intact: bool,
    /// Files that can be restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are absent or whose hash is wrong, as `Pack abcd…`.
    pub wrong: Vec<String>,
}

impl Vault {
    /// A learner's snapshots, newest first; expired ones are left out.
    ///
    /// # Errors
    /// When the learner or the store is away.
    pub async fn list(&self, learner: &LearnerId) -> Result<Vec<SnapshotInfo>, Error> {
        let (head, _) = self.head(learner).await?;
        let rows = self.store().generations(learner).await?;
        let info = |row: GenerationRow| {
            Some(SnapshotInfo {
                newest: row.generation == head.generation,
                generation: row.generation,
                snapshot_id: row.snapshot?,
                time: row.time,
                turn_id: row.turn,
                damaged: row.damaged,
            })
        };
        let present = rows.into_iter().filter(|row| !row.expired);
        Ok(present.filter_map(info).collect())
    }

    /// Reads a snapshot whole; `None` means the head's. Changes nothing.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] when there is none; [`Error::Storage`] when the storage does not let itself be read.
    pub async fn verify(
        &self,
        learner: &LearnerId,
        snapshot: Option<&SnapshotId>,
    ) -> Result<Verification, Error> {
        let row = self.row(learner, snapshot).await?;
        let (_, repository) = self.head(learner).await?;
        let keyed = self.keyed(learner, repository).await?;
        let found = self.inspect(&keyed, &row.snapshot_id).await?;
        Ok(Verification {
            generation: row.generation,
            snapshot_id: row.snapshot_id,
            intact: found.is_intact(),
            files: found.files,
            bytes: found.bytes,
            wrong: found
                .wrong
                .iter()
                .map(|wrong| format!("{:?} {}", wrong.kind, wrong.name))
                .collect(),
        })
    }

    /// Takes an older snapshot as the head. The caller has put the learner to sleep, or has seen them asleep after the incarnation of
    /// that epoch.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when it is not intact, [`Error::StaleEpoch`] when a newer incarnation has been here: the head stays then.
    pub async fn restore(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
        asleep: Option<Epoch>,
    ) -> Result<Head, Error> {
        let _alone = self.exclusive(learner).await;
        if let Some(epoch) = asleep {
            // Nothing is read for whoever comes late.
            self.contact(learner, epoch).await?;
        }
        self.sound_head(learner).await?;
        let verified = self.verify(learner, Some(snapshot)).await?;
        if !verified.intact {
            return Err(Error::Unreadable(verified.wrong.join(", ")));
        }
        let restored = self
            .store()
            .restore(learner, verified.generation, asleep, self.now());
        match restored.await? {
            Restored::Head(head) => Ok(head),
            Restored::StaleEpoch { fence } => Err(Error::StaleEpoch(fence)),
            Restored::Nothing => Err(Error::NoSnapshot),
        }
    }

    /// Lets a snapshot go before its time; its data go with the next prunes. Not the head's.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] when there is none, [`Error::Newest`] when it is the head's.
    pub async fn remove(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<(), Error> {
        let _alone = self.exclusive(learner).await;
        self.sound_head(learner).await?;
        let rows = self.list(learner).await?;
        if rows
            .iter()
            .any(|row| row.newest && row.snapshot_id == *snapshot)
        {
            return Err(Error::Newest);
        }
        let generations: Vec<_> = rows
            .into_iter()
            .filter(|row| row.snapshot_id == *snapshot)
            .map(|row| row.generation)
            .collect();
        if generations.is_empty() {
            return Err(Error::NoSnapshot);
        }
        Ok(self.store().mark_expired(learner, &generations).await?)
    }

    async fn row(
        &self,
        learner: &LearnerId,
        snapshot: Option<&SnapshotId>,
    ) -> Result<SnapshotInfo, Error> {
        self.list(learner)
            .await?
            .into_iter()
            .find(|row| snapshot.map_or(row.newest, |wanted| row.snapshot_id == *wanted))
            .ok_or(Error::NoSnapshot)
    }

    /// Erases: the key, the objects, then the learner's rows. The caller has closed the learner and ended its pod.
    /// Repeatable; what an upload under way brings back goes with [`Self::run`].
    ///
    /// # Errors
    /// When the storage or the store is away: call again.
    pub async fn erase(&self, learner: &LearnerId) -> Result<(), Error> {
        let _alone = self.exclusive(learner).await;
        let now = self.now();
        let row = self.store().learner(learner, now).await?;
        // One that is not closed was made since.
        let Some(row) = row.filter(|row| row.desired.deleting) else {
            return Ok(());
        };
        self.store().destroy_key(learner, row.repository).await?;
        self.forget_password(row.repository)?;
        self.objects()
            .erase(row.repository)
            .await
            .map_err(Error::storage("erasing a repository"))?;
        Ok(self.store().erase_learner(learner, now).await?)
    }

    /// Removes the objects of learners erased before `before` for the last time. What cannot be removed keeps no other.
    ///
    /// # Errors
    /// When the storage or the store is away: call again.
    pub async fn sweep_erased(&self, before: Timestamp) -> Result<(), Error> {
        let mut swept = Ok(());
        for repository in self.store().erased_repositories(before).await? {
            swept = swept.and(self.sweep_repository(repository).await);
        }
        swept
    }

    async fn sweep_repository(&self, repository: RepositoryId) -> Result<(), Error> {
        self.objects()
            .erase(repository)
            .await
            .map_err(Error::storage("erasing a repository again"))?;
        Ok(self.store().swept_repository(repository).await?)
    }

    /// Tries the key file on a data key that is there; without one there is nothing to try.
    ///
    /// # Errors
    /// When it does not open, or the store is away.
    pub async fn try_keys(&self) -> Result<(), Error> {
        try_keys(self.store(), &self.options().keyring, self.now()).await
    }

    /// Wraps every learner's data key by the first key-encryption key. Repeatable: what is wrapped by it already is left, and a
    /// key that does not open keeps no other from its turn.
    ///
    /// # Errors
    /// When the store is away: call again.
    pub async fn rewrap_keys(&self) -> Result<Rewrapped, Error> {
        const PAGE: u32 = 500;
        let mut done = Rewrapped::default();
        let mut after = None;
        loop {
            let page = self
                .store()
                .learners(after.as_ref(), PAGE, self.now())
                .await?;
            for row in &page {
                match self.rewrap_key(&row.id, row.repository).await {
                    Ok(true) => done.rewrapped += 1,
                    Ok(false) => done.left += 1,
                    Err(error @ Error::Key(_)) => {
                        tracing::error!(learner.id = %row.id, %error, "a data key was not wrapped anew");
                        done.failed.push(row.id.clone());
                    }
                    Err(error) => return Err(error),
                }
            }
            match page.last() {
                Some(last) => after = Some(last.id.clone()),
                None => return Ok(done),
            }
        }
    }

    async fn rewrap_key(
        &self,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<bool, Error> {
        let Some(old) = self.store().wrapped_key(learner).await? else {
            return Ok(false);
        };
        match self.options().keyring.rewrap(&old, learner, repository)? {
            Some(new) => Ok(self.store().rewrap_key(learner, &old, &new).await?),
            None => Ok(false),
        }
    }
}

/// Tries key-encryption keys on a data key of the store; without one there is nothing to try.
///
/// # Errors
/// When it does not open, or the store is away.
pub async fn try_keys(store: &SharedStore, keyring: &Keyring, now: Timestamp) -> Result<(), Error> {
    const PAGE: u32 = 500;
    let mut after = None;
    loop {
        let page = store.learners(after.as_ref(), PAGE, now).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id.clone());
        for row in page.iter().filter(|row| row.newest_snapshot.is_some()) {
            if let Some(wrapped) = store.wrapped_key(&row.id).await? {
                return keyring.unwrap(&wrapped, &row.id, row.repository).map(drop);
            }
        }
    }
}
