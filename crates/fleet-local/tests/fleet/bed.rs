//! A fleet with a store of its own, and what the tests ask of both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use carrel_core::class::ClassSpec;
use carrel_core::learner::{LearnerState, Status};
use carrel_core::{Epoch, LearnerId};
use carrel_fleet_local::{Budget, LocalFleet, Metrics, Options, WantedIsolation};
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::Fleet as _;
use carrel_protocol::token::Signer;
use carrel_store::SharedStore;
use carrel_store::learners::NewLearner;
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{Registry, Wakes};
use carrel_wire::Trust;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::stand_in::Told;

/// Whatever is waited for has come by then.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Looks again without a hint.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the fleet has read the clock: a keeper does before it reads the store.
pub(crate) static CLOCK_READ: AtomicUsize = AtomicUsize::new(0);
/// Whoever reads the clock next panics.
pub(crate) static CLOCK_BROKEN: AtomicBool = AtomicBool::new(false);

fn clock() -> Timestamp {
    CLOCK_READ.fetch_add(1, Ordering::SeqCst);
    assert!(
        !CLOCK_BROKEN.swap(false, Ordering::SeqCst),
        "the clock is broken, on purpose"
    );
    Timestamp::now()
}

/// Everybody may start at once.
pub(crate) const PLENTY: Budget = Budget {
    live: 100,
    starting: 100,
    per_second: 1000,
};

/// A fleet with a store of its own.
pub(crate) struct Bed {
    pub(crate) store: SharedStore,
    pub(crate) fleet: LocalFleet,
    pub(crate) file: PathBuf,
    _folder: TempDir,
}

impl Bed {
    pub(crate) async fn new(isolation: WantedIsolation, budget: Budget) -> Self {
        // As root, each pod is another user, who has to come to its folder and to the executable.
        let folder = tempfile::Builder::new()
            .prefix("carrel-fleet-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let executable = folder.path().join("fleet");
        std::fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
        let file = folder.path().join("store.db");
        let store: SharedStore = Arc::new(SqliteStore::open(&file).await.unwrap());
        let run_dir = folder.path().join("run");
        std::fs::create_dir(&run_dir).unwrap();
        let nowhere = Endpoint::Url("http://127.0.0.1:9".to_owned());
        let mut registry = Registry::default();
        let wakes = Wakes::register(&mut registry);
        let fleet = LocalFleet::start(Options {
            alone: true,
            metrics: Metrics::register(&mut registry, wakes),
            store: Arc::clone(&store),
            signer: Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap(),
            callers: Vec::new(),
            executable,
            run_dir,
            images_dir: folder.path().join("images"),
            vault: nowhere.clone(),
            router: nowhere,
            door: None,
            trust: Trust::default(),
            isolation,
            budget,
            clock,
            time_zone: "UTC".to_owned(),
            locale: "C.UTF-8".to_owned(),
        });
        Self {
            fleet: fleet.await.unwrap(),
            store,
            file,
            _folder: folder,
        }
    }

    /// A fleet of plain processes.
    pub(crate) async fn plain(budget: Budget) -> Self {
        Self::new(WantedIsolation::Process, budget).await
    }

    pub(crate) async fn class(&self, name: &str, spec: &ClassSpec) {
        let name = name.parse().unwrap();
        self.store.put_class(&name, spec).await.unwrap();
    }

    /// A learner of a class, which need not be there.
    pub(crate) async fn learner(&self, id: &str, class: &str) -> LearnerId {
        let id: LearnerId = id.parse().unwrap();
        let new = NewLearner {
            id: id.clone(),
            class: class.parse().unwrap(),
            aliases: Vec::new(),
        };
        self.store
            .create_learner(&new, Timestamp::now())
            .await
            .unwrap();
        id
    }

    /// A learner of a class that is there.
    pub(crate) async fn ordinary(&self, id: &str) -> LearnerId {
        self.class("plain", &ClassSpec::default()).await;
        self.learner(id, "plain").await
    }

    pub(crate) async fn wake(&self, learner: &LearnerId, after: u64) {
        self.fleet.wake(learner, Epoch(after)).await.unwrap();
    }

    /// Waits until the learner is seen so.
    pub(crate) async fn until(
        &self,
        learner: &LearnerId,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let mut changes = self.fleet.changes();
        let seen = async {
            loop {
                let status = self.fleet.status(learner).await.unwrap();
                if wanted(&status) {
                    return status;
                }
                let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
            }
        };
        tokio::time::timeout(SOON, seen).await.unwrap()
    }

    /// Wakes the learner for the first time.
    pub(crate) async fn awake(&self, learner: &LearnerId) -> Status {
        self.wake(learner, 0).await;
        self.until(learner, is(LearnerState::Ready)).await
    }

    /// The learner's status as the store has it.
    pub(crate) async fn stored(&self, learner: &LearnerId) -> Status {
        let row = self.store.learner(learner, Timestamp::now()).await.unwrap();
        row.unwrap().status
    }
}

/// Whether a learner is in this state.
pub(crate) fn is(state: LearnerState) -> impl Fn(&Status) -> bool {
    move |status| status.state == state
}

fn socket_of(status: &Status) -> PathBuf {
    let address = &status.pod.as_ref().unwrap().address;
    PathBuf::from(address.strip_prefix("unix:").unwrap())
}

/// Whether the pod's sidecar is there.
pub(crate) async fn lives(status: &Status) -> bool {
    UnixStream::connect(socket_of(status)).await.is_ok()
}

/// Kills the pod's sidecar, which is found by its socket.
pub(crate) async fn kill(status: &Status) {
    let sidecar = UnixStream::connect(socket_of(status)).await.unwrap();
    let pid = sidecar.peer_cred().unwrap().pid().and_then(Pid::from_raw);
    kill_process(pid.unwrap(), Signal::KILL).unwrap();
}

/// Tells the pod's sidecar what to be.
pub(crate) async fn tell(status: &Status, told: Told) {
    let mut sidecar = UnixStream::connect(socket_of(status)).await.unwrap();
    let body = serde_json::to_string(&told).unwrap();
    let request = format!(
        "POST /told HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    sidecar.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    sidecar.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
