//! What is done to a learner's repository while it sleeps: retention, prune in two phases, merge of indexes.
//!
//! Uses no timer of its own: a learner whose store rows change and that is asleep then is looked at once.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_core::class::{ClassSpec, SnapshotPolicy};
use carrel_core::learner::LearnerState;
use carrel_core::{LearnerId, RepositoryId};
use carrel_store::heads::GenerationRow;
use futures::StreamExt as _;
use jiff::SignedDuration;
use rustic_core::PruneOptions;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

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
/// Objects of an erased learner are removed again after this: longer than any upload takes.
const ERASED_GRACE: SignedDuration = SignedDuration::from_hours(25);
/// Changes are gathered for so long before sleeping learners among them are looked at.
const GATHER: Duration = Duration::from_secs(5);
/// Learners that are read at once when all are looked at.
const PAGE: u32 = 100;
const ERASED_EVERY: Duration = Duration::from_hours(1);
/// So many sleeping learners are looked after at once: a large repository holds up nobody, and turns keep their share of the
/// vault's jobs.
const AT_ONCE: usize = 2;

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
        let now = self.now();
        let row = self
            .store()
            .learner(learner, now)
            .await?
            .ok_or(Error::NoLearner)?;
        if row.status.state != LearnerState::Asleep || row.status.pod.is_some() {
            return Err(Error::Awake);
        }
        let class = self.store().class(&row.class).await?;
        let policy = class.map_or_else(|| ClassSpec::default().snapshot, |class| class.snapshot);
        let history = self.store().generations(learner).await?;
        let expired = expired(&history, &policy);
        if !expired.is_empty() {
            self.store().mark_expired(learner, &expired).await?;
        }
        let live: BTreeSet<&str> = history
            .iter()
            .filter(|row| !row.expired && !expired.contains(&row.generation))
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

    /// Looks after sleeping learners whose rows change, and after what erasing left, until cancelled; what runs then is let go
    /// at once, at any point: like a kill it leaves valid repositories.
    pub async fn run(&self, cancel: CancellationToken) {
        let changes = self.store().changes();
        cancel.run_until_cancelled(self.look_after(changes)).await;
    }

    async fn look_after(&self, mut changes: Receiver<LearnerId>) {
        let mut erased = tokio::time::interval(ERASED_EVERY);
        loop {
            tokio::select! {
                _ = erased.tick() => self.sweep_quietly().await,
                change = changes.recv() => {
                    let (mut learners, mut is_any_missed) = (BTreeSet::new(), false);
                    match change {
                        Ok(learner) => { learners.insert(learner); }
                        Err(RecvError::Lagged(_)) => is_any_missed = true,
                        Err(RecvError::Closed) => return,
                    }
                    tokio::time::sleep(GATHER).await;
                    loop {
                        match changes.try_recv() {
                            Ok(learner) => { learners.insert(learner); }
                            Err(TryRecvError::Lagged(_)) => is_any_missed = true,
                            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                        }
                    }
                    if is_any_missed {
                        self.maintain_all().await;
                    } else {
                        self.maintain_each(&learners).await;
                    }
                }
            }
        }
    }

    /// Whose changes were missed nobody knows.
    async fn maintain_all(&self) {
        let mut last = None;
        loop {
            match self.store().learners(last.as_ref(), PAGE, self.now()).await {
                Ok(page) if page.is_empty() => return,
                Ok(page) => {
                    let learners = page.into_iter().map(|row| row.id).collect();
                    self.maintain_each(&learners).await;
                    last = learners.into_iter().next_back();
                }
                Err(error) => {
                    tracing::warn!(%error, "the store does not say which learners there are");
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    async fn maintain_each(&self, learners: &BTreeSet<LearnerId>) {
        futures::stream::iter(learners)
            .for_each_concurrent(AT_ONCE, |learner| self.maintain_quietly(learner))
            .await;
    }

    async fn maintain_quietly(&self, learner: &LearnerId) {
        match self.maintain(learner).await {
            Ok(done) if done.pruned => {
                tracing::info!(learner.id = %learner, removed = done.removed, "repository pruned");
            }
            Ok(_) | Err(Error::Awake | Error::NoLearner) => {}
            Err(error) => {
                tracing::warn!(learner.id = %learner, %error, "maintenance of a repository failed");
            }
        }
    }

    async fn sweep_quietly(&self) {
        if let Err(error) = self.sweep_erased(self.now() - ERASED_GRACE).await {
            tracing::warn!(%error, "what an erased learner left could not be removed yet");
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use carrel_protocol::token::Verifier;
    use carrel_store::SharedStore;
    use carrel_store::learners::NewLearner;
    use carrel_store_sqlite::SqliteStore;
    use jiff::Timestamp;
    use tokio::sync::broadcast;

    use super::*;
    use crate::{Keyring, Objects, Options};

    #[tokio::test(flavor = "multi_thread")]
    async fn when_changes_were_missed_everybody_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let store: SharedStore = Arc::new(SqliteStore::open(&path.join("store.db")).await.unwrap());
        let now = || Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1_000_000);
        let vault = Vault::new(Options {
            store: Arc::clone(&store),
            objects: Objects::local(path.join("objects")).unwrap(),
            keyring: Keyring::read_or_create(&path.join("kek")).unwrap(),
            verifier: Verifier::new(&[]).unwrap(),
            gateways: Verifier::new(&[]).unwrap(),
            password_folder: path.join("restic"),
            clock: Arc::new(now),
            snapshots: carrel_telemetry::Snapshots::default(),
        });
        let mut unfinished = Vec::new();
        for number in 0..=PAGE {
            let new = NewLearner {
                id: format!("learner-{number}").parse().unwrap(),
                class: "default".parse().unwrap(),
                aliases: Vec::new(),
            };
            store.create_learner(&new, now()).await.unwrap();
            let row = store.learner(&new.id, now()).await.unwrap().unwrap();
            let index = path.join(format!("objects/{}/index", row.repository));
            fs::create_dir_all(&index).unwrap();
            unfinished.push(index.join(format!("{}#1", "ab".repeat(32))));
            fs::write(unfinished.last().unwrap(), "half of an upload").unwrap();
        }
        let (sender, changes) = broadcast::channel(1);
        for nobody in ["ada", "bob"] {
            sender.send(nobody.parse().unwrap()).unwrap();
        }
        let all_done = || async { !unfinished.iter().any(|file| file.exists()) };
        tokio::select! {
            () = vault.look_after(changes) => unreachable!("its sender is there"),
            () = carrel_testkit::until("nobody is forgotten", all_done) => {}
        }
    }
}
