//! What happens when a head cannot be restored: proof, mending, fall-back.
//!
//! Config and indexes are made anew from the rest. A generation whose snapshot or packs are absent or wrong in two readings
//! is damaged; then the newest intact one takes its place, in one store transaction that says which turns were lost.

use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_store::heads::Head;
use rustic_core::RepairIndexOptions;

use crate::inspect::{Inspection, Kind};
use crate::objects::FileKind;
use crate::vault::Keyed;
use crate::{Error, Vault, repository};

/// What a report of damage came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The head moved on meanwhile; this is it.
    Moved(Head),
    /// What was wrong could be made anew; the head stays.
    Mended(Head),
    /// An older state took the head's place.
    FellBack {
        /// The head now.
        head: Head,
        /// The damaged generation.
        from: Generation,
        /// The generation whose state was taken; 0: an empty workspace.
        to: Generation,
    },
}

impl Damage {
    /// The head to restore now.
    pub fn head(&self) -> &Head {
        match self {
            Self::Moved(head) | Self::Mended(head) | Self::FellBack { head, .. } => head,
        }
    }
}

impl Vault {
    /// Looks into a report that generation `reported` cannot be restored, and falls back if it is proved damaged. The
    /// learner's pod waits meanwhile; nothing else may write.
    ///
    /// # Errors
    /// [`Error::NotProved`] when all is well, [`Error::Storage`] when nothing could be proved; nothing has changed then.
    pub async fn fall_back(
        &self,
        learner: &LearnerId,
        reported: Generation,
    ) -> Result<Damage, Error> {
        let _alone = self.exclusive(learner).await;
        let (head, repository) = self.sound_head(learner).await?;
        let Some(snapshot) = head.snapshot.clone() else {
            return Ok(Damage::Moved(head));
        };
        if head.generation != reported {
            return Ok(Damage::Moved(head));
        }
        let keyed = self.keyed(learner, repository).await?;
        let (found, mended) = self.mend(&keyed, &snapshot).await?;
        if found.is_intact() {
            return if mended {
                tracing::warn!(learner.id = %learner, "a damaged config or index was made anew; nothing is lost");
                Ok(Damage::Mended(head))
            } else {
                Err(Error::NotProved)
            };
        }
        // First: an index that leads to what is not there would make every generation look damaged.
        self.put_aside(&keyed, &found).await?;
        let to = self.newest_intact(learner, &keyed, &head).await?;
        let now = self.now();
        let from = head.generation;
        self.store().mark_damaged(learner, from).await?;
        match self.store().fall_back(learner, from, to, now).await? {
            Some(head) => {
                self.options().snapshots.fell_back();
                tracing::error!(
                    learner.id = %learner, %from, %to, objects = found.wrong.len(),
                    "stored data were destroyed: an older state was taken",
                );
                Ok(Damage::FellBack { head, from, to })
            }
            None => Ok(Damage::Moved(self.head(learner).await?.0)),
        }
    }

    /// Reads a snapshot whole; makes config and indexes anew where that is what is wrong, and reads again.
    async fn mend(
        &self,
        keyed: &Keyed,
        snapshot: &SnapshotId,
    ) -> Result<(Inspection, bool), Error> {
        let mut mended = false;
        // Once for the config, once for the indexes that can be read only with it.
        for _ in 0..2 {
            let found = self.inspect(keyed, snapshot).await?;
            if found.is_intact() || !found.is_mendable() {
                return Ok((found, mended));
            }
            self.put_aside(keyed, &found).await?;
            mended = true;
        }
        Ok((self.inspect(keyed, snapshot).await?, mended))
    }

    /// The newest generation before the head that is intact; 0 if there is none. Damaged ones on the way are marked.
    async fn newest_intact(
        &self,
        learner: &LearnerId,
        keyed: &Keyed,
        head: &Head,
    ) -> Result<Generation, Error> {
        for row in self.store().generations(learner).await? {
            let older = row.generation < head.generation && row.snapshot != head.snapshot;
            if !older || row.damaged || row.expired {
                continue;
            }
            let Some(snapshot) = row.snapshot else {
                return Ok(row.generation);
            };
            if self.inspect(keyed, &snapshot).await?.is_intact() {
                return Ok(row.generation);
            }
            self.store().mark_damaged(learner, row.generation).await?;
        }
        Ok(Generation(0))
    }

    /// Moves wrong objects out of the way, so that no later snapshot builds on them, and brings config and indexes in
    /// line with what is there.
    async fn put_aside(&self, keyed: &Keyed, found: &Inspection) -> Result<(), Error> {
        let repository = keyed.repository;
        // Also those that this snapshot does not need: making indexes anew stumbles over them.
        let packs = self.wrong_packs(repository).await?;
        for wrong in packs.union(&found.wrong) {
            self.objects()
                .put_aside(repository, FileKind::from(wrong.kind), &wrong.name)
                .await
                .map_err(Error::storage("putting a damaged object aside"))?;
        }
        let config = found.wrong.iter().any(|wrong| wrong.kind == Kind::Config);
        let Keyed { key, backend, .. } = keyed.clone();
        self.blocking(move || {
            if config {
                return repository::create(&backend, &key);
            }
            let repo = repository::open(&backend, &key)?;
            backend.judge(repo.repair_index(&RepairIndexOptions::default(), false))
        })
        .await
    }
}
