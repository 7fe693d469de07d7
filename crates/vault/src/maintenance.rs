//! What is done to a learner's repository while it sleeps: retention, prune in two phases, merge of indexes.

mod rounds;

use std::collections::BTreeSet;

use carrel_core::class::{ClassSpec, SnapshotPolicy};
use carrel_core::learner::LearnerState;
use carrel_core::{LearnerId, RepositoryId};
use carrel_store::heads::GenerationRow;
use carrel_store::learners::Learner;
use jiff::SignedDuration;
use rustic_core::PruneOptions;

use crate::objects::FileKind;
use crate::retention::{Dated, kept};
use crate::vault::Keyed;
use crate::{Error, Vault, repository};

/// More indexes than this are merged.
const MANY_INDEXES: usize = 32;
/// A prune for fewer removed snapshots is not worth its reading.
const MANY_REMOVED: usize = 8;
/// A snapshot that was never committed is removed when it is older: longer than any token lives.
const UNCOMMITTED_GRACE: SignedDuration = SignedDuration::from_hours(25);

/// What maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Generations that expired.
    pub expired: usize,
    /// Snapshots that were removed.
    pub removed: usize,
    /// Whether packs and indexes were gone through.
    pub pruned: bool,
}

impl Vault {
    /// Applies the class's retention to a sleeping learner; prunes and merges indexes when there is reason to.
    ///
    /// # Errors
    /// [`Error::Awake`] when the learner is awake.
    pub async fn maintain(&self, learner: &LearnerId) -> Result<Maintained, Error> {
        let _alone = self.exclusive(learner).await;
        self.asleep(learner).await?;
        let Some(_others_wait) = self.store().keep_away(learner).await? else {
            return Err(Error::Awake);
        };
        // One that has woken meanwhile may have had its first contact.
        let row = self.asleep(learner).await?;
        self.sound_head(learner).await?;
        let class = self.store().class(&row.class).await?;
        let policy = class.map_or_else(|| ClassSpec::default().snapshot, |class| class.snapshot);
        let history = self.store().generations(learner).await?;
        let expired = expired(&history, &policy);
        let history = if expired.is_empty() {
            history
        } else {
            self.store().mark_expired(learner, &expired).await?;
            // What another vault restored meanwhile has the snapshot of a generation that is expired only now.
            self.store().generations(learner).await?
        };
        let live: BTreeSet<&str> = history
            .iter()
            .filter(|row| !row.expired)
            .filter_map(|row| row.snapshot.as_ref())
            .map(carrel_core::SnapshotId::as_str)
            .collect();
        let removed = self
            .remove_snapshots(row.repository, &history, &live)
            .await?;
        let indexes = self
            .objects()
            .list(row.repository, FileKind::Index)
            .await
            .map_err(Error::storage("listing indexes"))?;
        // What is damaged is kept for the operator, and prune would stumble over it.
        let damaged = history.iter().any(|row| row.damaged && !row.expired);
        let pruned = !damaged && (removed >= MANY_REMOVED || indexes.len() > MANY_INDEXES);
        if pruned {
            let keyed = self.keyed(learner, row.repository).await?;
            self.prune(&keyed).await?;
        }
        Ok(Maintained {
            expired: expired.len(),
            removed,
            pruned,
        })
    }

    async fn asleep(&self, learner: &LearnerId) -> Result<Learner, Error> {
        let row = self.store().learner(learner, self.now()).await?;
        let row = row.ok_or(Error::NoLearner)?;
        let is_asleep = row.status.state == LearnerState::Asleep && row.status.pod.is_none();
        // A newer incarnation has been here than the row says has ended: the row may be late.
        if !is_asleep || row.fence > row.status.epoch {
            return Err(Error::Awake);
        }
        Ok(row)
    }

    /// Removes snapshots of expired generations, and those that were never committed and no longer will be.
    async fn remove_snapshots(
        &self,
        repository: RepositoryId,
        history: &[GenerationRow],
        live: &BTreeSet<&str>,
    ) -> Result<usize, Error> {
        let removing = "removing old snapshots";
        let known: BTreeSet<&str> = history
            .iter()
            .filter_map(|row| row.snapshot.as_ref())
            .map(carrel_core::SnapshotId::as_str)
            .collect();
        let oldest = (self.now() - UNCOMMITTED_GRACE).as_second();
        self.objects()
            .sweep_unfinished(repository, oldest)
            .map_err(|source| Error::File {
                doing: removing.to_owned(),
                source,
            })?;
        let listed = self
            .objects()
            .list(repository, FileKind::Snapshots)
            .await
            .map_err(Error::storage(removing))?;
        let over = listed.into_iter().filter_map(|(name, meta)| {
            let over = known.contains(name.as_str()) || meta.last_modified.timestamp() < oldest;
            (over && !live.contains(name.as_str())).then_some(name)
        });
        let over: Vec<_> = over.collect();
        self.objects()
            .remove_all(repository, FileKind::Snapshots, &over)
            .await
            .map_err(Error::storage(removing))?;
        Ok(over.len())
    }

    /// First phase: packs that nothing needs are marked. Second, in a later prune a day on: marked ones go.
    async fn prune(&self, keyed: &Keyed) -> Result<(), Error> {
        let keyed = keyed.clone();
        self.blocking(move || {
            let repo = repository::open(&keyed.backend, &keyed.key)?;
            let options = PruneOptions::default();
            let plan = keyed.backend.judge(repo.prune_plan(&options))?;
            keyed.backend.judge(repo.prune(&options, plan))
        })
        .await
    }
}

/// The generations that the policy lets go: neither kept, nor damaged, nor expired already.
fn expired(history: &[GenerationRow], policy: &SnapshotPolicy) -> Vec<carrel_core::Generation> {
    let dated: Vec<_> = history
        .iter()
        .filter(|row| !row.expired && !row.damaged)
        .map(|row| Dated {
            generation: row.generation,
            time: row.time,
        })
        .collect();
    let kept = kept(&dated, policy);
    dated
        .iter()
        .map(|dated| dated.generation)
        .filter(|generation| !kept.contains(generation))
        .collect()
}
