//! The fleet of this machine: one keeper for every learner that stirs, none for those that sleep.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carrel_core::learner::{LearnerState, Status};
use carrel_core::{Epoch, LearnerId};
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::{Error, Fleet, IsolationReport};
use carrel_protocol::token::{Caller, PublicKey, Signer};
use carrel_store::SharedStore;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Budget};
use crate::container::{self, Isolation, Runtime};
use crate::image::Images;
use crate::learner::{Handle, Keeper};
use crate::leftovers;
use crate::metrics::Metrics;
use crate::pod::{Ground, Maker};

/// Before the store is asked again after it was away.
pub(crate) const STORE_AGAIN: Duration = Duration::from_millis(500);
/// Before a sidecar that does not listen yet is tried again.
pub(crate) const CONNECT_AGAIN: Duration = Duration::from_millis(2);
/// How long a sidecar may take to say how quiet its learner is; one that says nothing is not chosen.
const HELLO: Duration = Duration::from_secs(1);
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

/// What every keeper shares.
pub(crate) struct Shared {
    pub(crate) store: SharedStore,
    pub(crate) ground: Arc<Ground>,
    pub(crate) maker: Maker,
    pub(crate) admission: Admission,
    pub(crate) changes: broadcast::Sender<LearnerId>,
    pub(crate) callers: Vec<PublicKey>,
    pub(crate) vault: Endpoint,
    pub(crate) router: Endpoint,
    pub(crate) time_zone: String,
    pub(crate) locale: String,
    pub(crate) metrics: Metrics,
    keepers: Mutex<HashMap<LearnerId, Arc<Handle>>>,
    /// Held while one is chosen to make room, so that no two who want room choose the same.
    choosing: tokio::sync::Mutex<()>,
    report: IsolationReport,
    closing: CancellationToken,
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
            signer: options.signer,
            clock: options.clock,
            tracker,
        });
        let images = Images::new(options.images_dir, Vec::new());
        let shared = Arc::new(Shared {
            store: options.store,
            maker: Maker::new(Arc::clone(&ground), runtime, images),
            admission: Admission::new(options.budget),
            changes: broadcast::Sender::new(CHANGES),
            callers,
            vault: options.vault,
            router: options.router,
            time_zone: options.time_zone,
            locale: options.locale,
            metrics: options.metrics,
            keepers: Mutex::default(),
            choosing: tokio::sync::Mutex::default(),
            report,
            closing: CancellationToken::new(),
            ground,
        });
        let fleet = Self { shared };
        fleet
            .shared
            .ground
            .tracker
            .spawn(fleet.clone().look_after_all());
        Ok(fleet)
    }

    /// Starts a keeper for each learner that stirs already, as soon as the store says who does.
    async fn look_after_all(self) {
        loop {
            match self.shared.store.stirring().await {
                Ok(learners) => {
                    for learner in learners {
                        self.keep(&learner.id);
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the store does not say which learners stir");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
            }
        }
    }

    /// Ends everything for a stop: every learner takes its final snapshot and sleeps; what does not within `grace` is
    /// ended. The time is the caller's to bound, too.
    pub async fn drain(&self, grace: Duration) {
        self.shared.closing.cancel();
        let handles: Vec<_> = self.shared.lock().values().cloned().collect();
        for handle in &handles {
            handle.sleep_now.store(true, Ordering::Release);
            handle.nudge.notify_one();
        }
        self.shared.ground.tracker.close();
        if tokio::time::timeout(grace, self.shared.ground.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("learners that did not fall asleep in time are ended");
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
        loop {
            let keeper = Keeper::new(Arc::clone(&self.shared), id.clone(), Arc::clone(&handle));
            Box::pin(keeper.run()).await;
            let mut keepers = self.shared.lock();
            // A wish that came after the last look must not be left lying.
            let nudged = std::pin::pin!(handle.nudge.notified()).enable();
            if !nudged {
                keepers.remove(&id);
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

    /// The live cap is reached: the learner quiet longest is put to sleep.
    pub(crate) fn make_room(self: &Arc<Self>, wanting: &LearnerId) {
        let shared = Arc::clone(self);
        let wanting = wanting.clone();
        self.ground
            .tracker
            .spawn(async move { shared.put_quietest_to_sleep(&wanting).await });
    }

    async fn put_quietest_to_sleep(&self, wanting: &LearnerId) {
        let _alone = self.choosing.lock().await;
        let awake: Vec<_> = {
            let keepers = self.lock();
            let (mut waiting, mut leaving) = (0, 0);
            for handle in keepers.values() {
                let status = handle.status.borrow();
                waiting +=
                    usize::from(status.state == LearnerState::Waking && status.pod.is_none());
                leaving += usize::from(
                    handle.make_room.load(Ordering::Acquire)
                        || matches!(
                            status.state,
                            LearnerState::Draining | LearnerState::Snapshotting
                        ),
                );
            }
            if leaving >= waiting {
                return;
            }
            keepers
                .iter()
                .filter(|(id, handle)| {
                    *id != wanting
                        && handle.status.borrow().state == LearnerState::Ready
                        && !handle.make_room.load(Ordering::Acquire)
                })
                .map(|(id, handle)| (id.clone(), Arc::clone(handle)))
                .collect()
        };
        let mut quietest: Option<(Timestamp, Arc<Handle>)> = None;
        for (id, handle) in awake {
            let sidecar = handle.sidecar.borrow().clone();
            let epoch = handle.status.borrow().epoch;
            let now = self.ground.now();
            let token = self
                .ground
                .signer
                .caller_token(Caller::Controller, &id, epoch, now);
            let (Some(sidecar), Ok(token)) = (sidecar, token) else {
                continue;
            };
            let hello = tokio::time::timeout(HELLO, sidecar.hello(&token, None)).await;
            let Ok(Ok(hello)) = hello else {
                continue;
            };
            let Some(since) = hello.quiet_since else {
                continue;
            };
            if quietest.as_ref().is_none_or(|(least, _)| since < *least) {
                quietest = Some((since, handle));
            }
        }
        if let Some((_, handle)) = quietest {
            handle.make_room.store(true, Ordering::Release);
            handle.nudge.notify_one();
        }
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
            handle.sleep_now.store(true, Ordering::Release);
            handle.nudge.notify_one();
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
        if let Some(status) = kept.filter(is_known) {
            return Ok(status);
        }
        let found = self
            .shared
            .store
            .learner(learner, self.shared.ground.now())
            .await;
        match found.map_err(|error| away("reading a learner's status", error))? {
            Some(learner) => Ok(learner.status),
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

    fn isolation(&self) -> IsolationReport {
        self.shared.report.clone()
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

async fn isolation(options: &Options) -> Result<(Option<Runtime>, IsolationReport), StartError> {
    let process = |reason: &str| IsolationReport {
        isolation: "process".to_owned(),
        limits_missing: container::Limit::ALL
            .iter()
            .map(ToString::to_string)
            .collect(),
        warning: format!(
            "nothing isolates learners from each other or from this machine: {reason}"
        ),
    };
    if options.isolation == WantedIsolation::Process {
        return Ok((None, process("isolation 'process' was asked for")));
    }
    let runtime = Runtime::open(container::Options {
        executable: options.executable.clone(),
        subcommand: vec!["container".to_owned()],
        state_root: options.run_dir.join("c"),
    })
    .map_err(StartError::Runtime)?;
    runtime.sweep().await.map_err(StartError::Runtime)?;
    match (runtime.detect().await, options.isolation) {
        (Isolation::Oci { limits_missing, .. }, _) => {
            let limits_missing = limits_missing.iter().map(ToString::to_string).collect();
            let report = IsolationReport {
                isolation: "oci".to_owned(),
                limits_missing,
                warning: String::new(),
            };
            Ok((Some(runtime), report))
        }
        (Isolation::Process { reason }, WantedIsolation::Oci) => {
            Err(StartError::NoContainers(reason))
        }
        (Isolation::Process { reason }, _) => Ok((None, process(&reason))),
    }
}
