//! The vault's handle: what it needs, and how its parts find a learner's repository and do blocking work on it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use carrel_core::{Epoch, Generation, LearnerId, RepositoryId};
use carrel_protocol::token::Verifier;
use carrel_protocol::vault::DataKey;
use carrel_store::SharedStore;
use carrel_store::heads::{Contact, GenerationRow, Head};
use carrel_telemetry::Snapshots;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::spawn_blocking;

use crate::backend::Backend;
use crate::http::Intake;
use crate::inspect::{Inspection, Wrong, inspect, wrong_packs};
use crate::objects::FileKind;
use crate::{Error, Keyring, Objects, repository};

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How many repositories are worked on at once: each holds its index in memory.
const JOBS: usize = 8;

/// How many objects `rustic_core` reads at once: it reads by the threads of `rayon`, which would be one a processor, and they
/// wait for the storage.
const READS: usize = 16;

/// What a vault is made of.
pub struct Options {
    /// Heads, fences and wrapped keys.
    pub store: SharedStore,
    /// Where the snapshots are.
    pub objects: Objects,
    /// What wraps the data keys.
    pub keyring: Keyring,
    /// By which pods' tokens are verified.
    pub verifier: Verifier,
    /// By which gateways' tokens are verified.
    pub gateways: Verifier,
    /// The folder for passwords that stock restic is given.
    pub password_folder: PathBuf,
    /// The time.
    pub clock: Clock,
    /// What is measured of snapshots.
    pub snapshots: Snapshots,
}

const NO_DATA_KEY: &str = "a learner with snapshots has no data key: put its row of the table data_key back, from a backup of the store";

/// The vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    options: Options,
    jobs: Arc<Semaphore>,
    exclusive: Mutex<HashMap<LearnerId, Arc<tokio::sync::Mutex<()>>>>,
    files: Intake,
    commits: Intake,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("objects", &self.0.options.objects)
            .finish_non_exhaustive()
    }
}

/// A repository with what opens it.
#[derive(Clone)]
pub(crate) struct Keyed {
    pub(crate) repository: RepositoryId,
    pub(crate) key: DataKey,
    pub(crate) backend: Backend,
}

impl Vault {
    /// A vault. Nothing runs until it is asked.
    pub fn new(options: Options) -> Self {
        // Of the whole process: whoever was first has settled it.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(READS)
            .build_global();
        Self(Arc::new(Inner {
            options,
            jobs: Arc::new(Semaphore::new(JOBS)),
            exclusive: Mutex::default(),
            files: Intake::of_files(),
            commits: Intake::of_commits(),
        }))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn store(&self) -> &SharedStore {
        &self.0.options.store
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.0.options.objects
    }

    /// Room for the files that pods send.
    pub(crate) fn files(&self) -> &Intake {
        &self.0.files
    }

    /// Room for their commits, which wait for no file.
    pub(crate) fn commits(&self) -> &Intake {
        &self.0.commits
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.options.clock)()
    }

    /// A pod's contact: raises the fence, and refuses what is below it.
    pub(crate) async fn contact(
        &self,
        learner: &LearnerId,
        epoch: Epoch,
    ) -> Result<(Head, RepositoryId), Error> {
        match self.store().contact(learner, epoch).await? {
            Contact::Current { head, repository } => Ok((head, repository)),
            Contact::Stale { fence } => Err(Error::StaleEpoch(fence)),
            Contact::NoLearner => Err(Error::NoLearner),
        }
    }

    pub(crate) async fn head(&self, learner: &LearnerId) -> Result<(Head, RepositoryId), Error> {
        self.store().head(learner).await?.ok_or(Error::NoLearner)
    }

    /// The head, after comparing it with the newest generation, which says the same a second time: nothing is restored, taken
    /// for lost or removed by a head of which a bit is wrong.
    pub(crate) async fn sound_head(
        &self,
        learner: &LearnerId,
    ) -> Result<(Head, RepositoryId), Error> {
        let (mut head, mut repository) = self.head(learner).await?;
        loop {
            let newest = self.store().newest_generation(learner).await?;
            if agree(&head, newest.as_ref()) {
                return Ok((head, repository));
            }
            let before = head;
            (head, repository) = self.head(learner).await?;
            // One that moved meanwhile contradicts nothing.
            if head == before {
                return Err(Error::Contradiction);
            }
        }
    }

    /// The learner's repository with its key; both are made when they are not there.
    pub(crate) async fn keyed(
        &self,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<Keyed, Error> {
        let keyring = &self.0.options.keyring;
        let wrapped = if let Some(wrapped) = self.store().wrapped_key(learner).await? {
            wrapped
        } else {
            // With another key all that it has would look damaged.
            if self.head(learner).await?.0.generation > Generation(0) {
                return Err(Error::Key(NO_DATA_KEY));
            }
            let new = keyring.generate(learner, repository)?;
            self.store()
                .put_key_if_absent(learner, &new)
                .await?
                .ok_or(Error::NoLearner)?
        };
        let keyed = Keyed {
            repository,
            key: keyring.unwrap(&wrapped, learner, repository)?,
            backend: Backend::new(self.objects().clone(), repository),
        };
        if self.find_config(&keyed).await? {
            return Ok(keyed);
        }
        let Keyed { key, backend, .. } = keyed.clone();
        let made = self.blocking(move || repository::create(&backend, &key));
        // Another vault may have made it meanwhile: then that one's is taken.
        if let Err(error) = made.await
            && !self.find_config(&keyed).await?
        {
            return Err(error);
        }
        Ok(keyed)
    }

    /// Whether the repository's config is there; then it is read.
    async fn find_config(&self, keyed: &Keyed) -> Result<bool, Error> {
        let read = self.objects().read(keyed.repository, FileKind::Config, "");
        let config = read
            .await
            .map_err(Error::storage("looking for a repository"))?;
        Ok(config
            .map(|config| keyed.backend.tell_config(config))
            .is_some())
    }

    pub(crate) async fn read_back(
        &self,
        keyed: &Keyed,
        snapshot: &carrel_core::SnapshotId,
    ) -> Result<(), Error> {
        let (keyed, snapshot) = (keyed.clone(), snapshot.clone());
        self.blocking(move || repository::read_back(&keyed.backend, &keyed.key, &snapshot))
            .await
    }

    pub(crate) async fn inspect(
        &self,
        keyed: &Keyed,
        snapshot: &carrel_core::SnapshotId,
    ) -> Result<Inspection, Error> {
        let (keyed, snapshot) = (keyed.clone(), snapshot.clone());
        let (objects, runtime) = (self.objects().clone(), Handle::current());
        self.blocking(move || {
            inspect(
                &objects,
                keyed.repository,
                &keyed.key,
                &keyed.backend,
                &runtime,
                &snapshot,
            )
        })
        .await
    }

    pub(crate) async fn wrong_packs(
        &self,
        repository: RepositoryId,
    ) -> Result<BTreeSet<Wrong>, Error> {
        let (objects, runtime) = (self.objects().clone(), Handle::current());
        self.blocking(move || wrong_packs(&objects, repository, &runtime))
            .await
    }

    /// Does blocking work on a repository, a few at once. `rustic_core` may panic over bad data: that is an error here.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.0.jobs)
            .acquire_owned()
            .await
            .map_err(|closed| Error::Internal(closed.to_string()))?;
        spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|panicked| Error::Internal(panicked.to_string()))?
    }

    /// Holds a learner's repository alone: first contacts, maintenance and fall-back wait for each other.
    pub(crate) async fn exclusive(&self, learner: &LearnerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self
                .0
                .exclusive
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(learner.clone()).or_default())
        };
        lock.lock_owned().await
    }
}

/// Whether the two say the same.
fn agree(head: &Head, newest: Option<&GenerationRow>) -> bool {
    match newest {
        None => *head == Head::default(),
        Some(row) => {
            (row.generation, &row.snapshot) == (head.generation, &head.snapshot) && !row.expired
        }
    }
}
