//! The fleet of this machine: one keeper for every learner that stirs, none for those that sleep.

mod hearing;
mod isolation;
mod kept;
mod room;
mod stirring;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carrel_core::learner::{LearnerState, Status};
use carrel_core::lifecycle;
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_protocol::token::{PublicKey, Signer, Verifier};
use carrel_store::SharedStore;
use carrel_wire::Trust;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::isolation::isolation;
use self::kept::Kept;
use crate::admission::{Admission, Budget};
use crate::container;
use crate::door;
use crate::image::Images;
use crate::learner::{Handle, Keeper};
use crate::leftovers;
use crate::metrics::Metrics;
use crate::pod::{Ground, Maker};

/// Before the store is asked again after it was away.
pub(crate) const STORE_AGAIN: Duration = Duration::from_millis(500);
/// Before a sidecar that does not listen yet is tried again.
pub(crate) const CONNECT_AGAIN: Duration = Duration::from_millis(2);
/// How long what is ended by force may take until nothing of it is left.
const CLEARED_WITHIN: Duration = Duration::from_secs(3);
/// Changes that a slow listener may miss before it is told so.
const CHANGES: usize = 4096;

/// Reads the time.
pub type Clock = fn() -> Timestamp;

/// How agents are to be kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WantedIsolation {
    /// Containers where they work, else plain processes, said aloud.
    #[default]
    Auto,
    /// Containers, or nothing starts.
    Oci,
    /// Plain processes: nothing isolates.
    Process,
}

/// How the fleet is set up.
pub struct Options {
    /// Durable state.
    pub store: SharedStore,
    /// Whether no other process uses the store: then nothing is wanted of learners that this one is not told of.
    pub alone: bool,
    /// Signs assignments, learners' tokens and calls to sidecars.
    pub signer: Signer,
    /// Who else may call sidecars: the gateway's keys.
    pub callers: Vec<PublicKey>,
    /// Our executable, at a path that any user of this machine may run.
    pub executable: PathBuf,
    /// A short folder (its sockets' paths must stay under 108 bytes) that any user of this machine may pass through.
    pub run_dir: PathBuf,
    /// Where unpacked images are kept.
    pub images_dir: PathBuf,
    /// The vault, as sidecars reach it.
    pub vault: Endpoint,
    /// The router, as sidecars reach it.
    pub router: Endpoint,
    /// The base URL at which gateways reach [`LocalFleet::door`]; absent: they are on this machine, and use pods' sockets.
    pub door: Option<String>,
    /// Whose word sidecars take for who those two are.
    pub trust: Trust,
    /// How agents are kept apart.
    pub isolation: WantedIsolation,
    /// Who may start when.
    pub budget: Budget,
    /// Reads the time.
    pub clock: Clock,
    /// The agents' time zone (`TZ`).
    pub time_zone: String,
    /// The agents' locale (`LANG`).
    pub locale: String,
    /// What is measured; registered before.
    pub metrics: Metrics,
}

/// Why the fleet could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Containers were demanded and do not work here.
    #[error("isolation 'oci' does not work here: {0}; 'auto' would run agents without isolation")]
    NoContainers(String),
    /// The container runtime could not be set up.
    #[error("the container runtime could not be set up")]
    Runtime(#[source] container::Error),
    /// The run folder could not be prepared.
    #[error("the run folder could not be prepared")]
    RunDir(#[source] std::io::Error),
}

type Keepers = Mutex<HashMap<LearnerId, Arc<Handle>>>;

/// What every keeper shares.
pub(crate) struct Shared {
    pub(crate) store: SharedStore,
    pub(crate) is_alone: bool,
    pub(crate) ground: Arc<Ground>,
    pub(crate) maker: Maker,
    pub(crate) admission: Admission,
    pub(crate) changes: broadcast::Sender<LearnerId>,
    pub(crate) callers: Vec<PublicKey>,
    pub(crate) vault: Endpoint,
    pub(crate) router: Endpoint,
    pub(crate) trust: Trust,
    pub(crate) time_zone: String,
    pub(crate) locale: String,
    pub(crate) metrics: Metrics,
    keepers: Keepers,
    /// Held while one is chosen to make room, so that no two who want room choose the same.
    choosing: tokio::sync::Mutex<()>,
    report: IsolationReport,
    /// Nobody wakes any more.
    closing: CancellationToken,
    /// Whoever is still kept is let go at once, and its pod with it.
    ending: CancellationToken,
}

/// The fleet of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalFleet {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LocalFleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalFleet")
            .field("report", &self.shared.report)
            .finish_non_exhaustive()
    }
}

impl LocalFleet {
    /// Clears what an earlier run left, finds out what isolates here, and looks after every learner that stirs.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let pods_dir = options.run_dir.join("p");
        leftovers::clear(&pods_dir)
            .await
            .map_err(StartError::RunDir)?;
        let (runtime, report) = isolation(&options).await?;
        let tracker = TaskTracker::new();
        let mut callers = options.callers;
        callers.push(options.signer.public_key().clone());
        let keys_file = options.run_dir.join("keys.json");
        write_keys(&keys_file, options.signer.public_key()).map_err(StartError::RunDir)?;
        let ground = Arc::new(Ground {
            executable: options.executable,
            keys_file,
            pods_dir,
            door: options.door,
            signer: options.signer,
            clock: options.clock,
            tracker,
        });
        let images = Images::new(options.images_dir);
        let shared = Arc::new(Shared {
            store: options.store,
            is_alone: options.alone,
            maker: Maker::new(Arc::clone(&ground), runtime, images),
            admission: Admission::new(options.budget),
            changes: broadcast::Sender::new(CHANGES),
            callers,
            vault: options.vault,
            router: options.router,
            trust: options.trust,
            time_zone: options.time_zone,
            locale: options.locale,
            metrics: options.metrics,
            keepers: Mutex::default(),
            choosing: tokio::sync::Mutex::default(),
            report,
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
            ground,
        });
        let fleet = Self { shared };
        let tracker = &fleet.shared.ground.tracker;
        let (shared, store) = (Arc::clone(&fleet.shared), &fleet.shared.store);
        let (for_kept, for_others) = (store.changes(), store.changes());
        tracker.spawn(async move {
            let hear = hearing::hear(&shared.keepers, for_kept);
            shared.closing.run_until_cancelled(hear).await;
        });
        let (finding, closing) = (fleet.clone(), fleet.shared.closing.clone());
        tracker.spawn(async move {
            let find = stirring::find(finding, for_others);
            closing.run_until_cancelled(find).await;
        });
        Ok(fleet)
    }

    /// How learners are kept apart here.
    pub fn report(&self) -> IsolationReport {
        self.shared.report.clone()
    }

    /// What is to be served where gateways on other machines reach this one's pods: whoever has a token by one of these keys.
    pub fn door(&self, gateways: Verifier) -> axum::Router {
        door::router(Arc::clone(&self.shared.ground), gateways)
    }

    /// Ends everything for a stop: every learner takes its final snapshot and sleeps; what does not within `grace` is
    /// ended, which takes at most three seconds. Nothing of the fleet runs afterwards, so the store may be closed.
    pub async fn drain(&self, grace: Duration) {
        self.shared.closing.cancel();
        let handles: Vec<_> = self.shared.lock().values().cloned().collect();
        for handle in &handles {
            handle.sleep_now();
        }
        let tracker = &self.shared.ground.tracker;
        tracker.close();
        if tokio::time::timeout(grace, tracker.wait()).await.is_ok() {
            return;
        }
        tracing::warn!("learners that did not fall asleep in time are ended");
        self.shared.ending.cancel();
        if tokio::time::timeout(CLEARED_WITHIN, tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("what is left of pods is cleared at the next start");
        }
    }

    fn keep(&self, id: &LearnerId) -> Arc<Handle> {
        let mut keepers = self.shared.lock();
        if let Some(handle) = keepers.get(id) {
            handle.nudge.notify_one();
            return Arc::clone(handle);
        }
        let handle = Arc::new(Handle::new());
        if self.shared.closing.is_cancelled() {
            return handle;
        }
        keepers.insert(id.clone(), Arc::clone(&handle));
        drop(keepers);
        let (fleet, id, kept) = (self.clone(), id.clone(), Arc::clone(&handle));
        self.shared
            .ground
            .tracker
            .spawn(fleet.keep_until_rest(id, kept));
        handle
    }

    async fn keep_until_rest(self, id: LearnerId, handle: Arc<Handle>) {
        let kept = Kept::new(Arc::clone(&self.shared), id, handle);
        loop {
            let keeper = Keeper::new(Arc::clone(&self.shared), kept.id(), kept.handle());
            tokio::select! {
                () = self.shared.ending.cancelled() => return,
                () = Box::pin(keeper.run()) => {}
            }
            if kept.rests() {
                return;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LearnerId, Arc<Handle>>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the fleet is being stopped.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }
}

#[async_trait::async_trait]
impl Fleet for LocalFleet {
    async fn wake(&self, learner: &LearnerId, after: Epoch) -> Result<(), Error> {
        let known = self.shared.store.wake_after(learner, after).await;
        known.map_err(|error| away("asking for an incarnation", error))?;
        self.keep(learner);
        Ok(())
    }

    async fn sleep(&self, learner: &LearnerId) -> Result<(), Error> {
        let handle = self.shared.lock().get(learner).cloned();
        if let Some(handle) = handle {
            handle.sleep_now();
        }
        Ok(())
    }

    async fn status(&self, learner: &LearnerId) -> Result<Status, Error> {
        let kept = self
            .shared
            .lock()
            .get(learner)
            .map(|handle| handle.status.borrow().clone());
        // Whether one that was being erased is there again, the store alone knows.
        let is_known = |status: &Status| {
            *status != Status::default() && status.state != LearnerState::Deleting
        };
        let is_kept = kept.is_some();
        if let Some(status) = kept.filter(is_known) {
            return Ok(status);
        }
        let found = self
            .shared
            .store
            .learner(learner, self.shared.ground.now())
            .await;
        match found.map_err(|error| away("reading a learner's status", error))? {
            Some(learner) => {
                if stirring::stirs(&learner) && !is_kept {
                    // Whoever asks waits for something that nobody looks after.
                    self.keep(&learner.id);
                }
                Ok(lifecycle::shown(&learner.desired, learner.status))
            }
            None => Err(Error::NoLearner(learner.clone())),
        }
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.shared.changes.subscribe()
    }

    async fn discard(&self, learner: &LearnerId) -> Result<(), Error> {
        let handle = self.keep(learner);
        handle.nudge.notify_one();
        let mut sidecar = handle.sidecar.subscribe();
        // The keeper kills the pod of a learner that is being erased, and forgets its sidecar then.
        let _ = sidecar.wait_for(Option::is_none).await;
        Ok(())
    }

    async fn isolation(&self) -> Result<IsolationReport, Error> {
        Ok(self.report())
    }
}

fn away(doing: &'static str, error: carrel_store::Error) -> Error {
    Error::Unavailable {
        doing,
        source: Box::new(error),
    }
}

/// Writes who may assign pods, for every sidecar to read.
fn write_keys(path: &std::path::Path, key: &PublicKey) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_vec(&[key])?)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}
