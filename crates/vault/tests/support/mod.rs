//! A vault on a Unix socket with a store in SQLite, and a sidecar's part played by hand.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod faults;
pub(crate) mod restic;
pub(crate) mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrel_core::{Epoch, Generation, LearnerId, PodUid, SnapshotId};
use carrel_protocol::Endpoint;
use carrel_protocol::token::{Signer, Verifier};
use carrel_protocol::vault::{CommitAnswer, CommitRequest, DataKey, Head};
use carrel_sidecar::snapshot::{BackupOutcome, Limits, Repository, Snapshots};
use carrel_store::learners::NewLearner;
use carrel_store::{Learners, SharedStore};
use carrel_store_sqlite::SqliteStore;
use carrel_testkit::s3::{self, S3Server};
use carrel_vault::{Keyring, Objects, Options, S3, S3Credentials, S3Keys, Vault, router};
use faults::{Faulty, Switch};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Before all names in the bucket.
const PREFIX: &str = "of/us";

pub(crate) fn bucket(server: &S3Server) -> S3 {
    S3 {
        may_be_new: true,
        bucket: s3::BUCKET.to_owned(),
        prefix: PREFIX.to_owned(),
        endpoint: server.endpoint(),
        region: "us-east-1".to_owned(),
        path_style: true,
        keys: S3Keys::Fixed(S3Credentials::parse(&S3Server::credentials()).expect("keys")),
        authorities: None,
    }
}

pub(crate) struct Desk {
    pub(crate) folder: TempDir,
    pub(crate) store: SharedStore,
    pub(crate) vault: Vault,
    pub(crate) signer: Signer,
    /// The gateways' key.
    pub(crate) gateway: Signer,
    pub(crate) client: reqwest::Client,
    objects_folder: PathBuf,
    socket: PathBuf,
    /// The server of its objects, when they are not in a folder.
    pub(crate) server: Option<S3Server>,
    _stop: DropGuard,
}

pub(crate) fn now() -> Timestamp {
    Timestamp::try_from(std::time::UNIX_EPOCH + elapsed()).expect("a time of today")
}

fn elapsed() -> Duration {
    // The one place where the tests look at the clock.
    static START: std::sync::OnceLock<(Instant, Duration)> = std::sync::OnceLock::new();
    let (start, then) = START.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let made = file.as_file().metadata().and_then(|m| m.modified());
        let since = made.expect("a time").duration_since(std::time::UNIX_EPOCH);
        (Instant::now(), since.expect("after 1970"))
    });
    *then + start.elapsed()
}

impl Desk {
    /// One whose storage fails when it is told to, and counts.
    pub(crate) async fn faulty() -> (Self, Arc<Switch>) {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("objects");
        let switch = Arc::new(Switch::default());
        std::fs::create_dir(&inner).expect("a folder");
        let objects = Objects::new(Arc::new(Faulty {
            inner: LocalFileSystem::new_with_prefix(&inner).expect("a folder"),
            switch: Arc::clone(&switch),
        }));
        (Self::with(folder, objects).await, switch)
    }

    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::local(folder.path().join("objects")).expect("objects");
        Self::with(folder, objects).await
    }

    /// The same on a real S3 server; `None`, and said, where there is none.
    pub(crate) async fn on_s3(test: &str) -> Option<Self> {
        Self::on_s3_as(test, &s3::Setup::default()).await
    }

    /// The same on one that is unlike others.
    #[expect(clippy::print_stdout, reason = "a skip is printed with its reason")]
    pub(crate) async fn on_s3_as(test: &str, setup: &s3::Setup) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let server = match S3Server::start_as(folder.path(), setup) {
            Ok(server) => server,
            Err(reason) => {
                let required = std::env::var_os("CARREL_REQUIRE").unwrap_or_default();
                let required = required
                    .to_string_lossy()
                    .split(',')
                    .any(|item| item == "s3");
                assert!(!required, "s3 is required and absent: {reason}");
                println!("SKIP {test}: {reason}");
                return None;
            }
        };
        let mut options = bucket(&server);
        let certificate = setup.certificate.as_ref();
        options.authorities = certificate.map(|made| made.authority.clone().into_bytes());
        if let Some(region) = setup.region {
            region.clone_into(&mut options.region);
        }
        let objects = Objects::s3(&options).await.expect("a bucket");
        let mut desk = Self::with(folder, objects).await;
        desk.objects_folder = server.bucket_folder().join(PREFIX);
        desk.server = Some(server);
        Some(desk)
    }

    pub(crate) async fn with(folder: TempDir, objects: Objects) -> Self {
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        Self::on_store(folder, objects, Arc::new(store.expect("a store")))
    }

    pub(crate) fn on_store(folder: TempDir, objects: Objects, store: SharedStore) -> Self {
        let path = folder.path();
        let objects_folder = path.join("objects");
        let signer = Signer::from_pem(&Signer::generate_pem().expect("randomness")).expect("a key");
        let gateway =
            Signer::from_pem(&Signer::generate_pem().expect("randomness")).expect("a key");
        let vault = Vault::new(Options {
            store: Arc::clone(&store),
            objects,
            keyring: Keyring::read_or_create(&path.join("kek")).expect("a key"),
            verifier: Verifier::new(&[signer.public_key().clone()]).expect("a key"),
            gateways: Verifier::new(&[gateway.public_key().clone()]).expect("a key"),
            password_folder: path.join("restic"),
            clock: Arc::new(now),
            snapshots: carrel_telemetry::Snapshots::default(),
        });
        let socket = path.join("vault.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let cancel = CancellationToken::new();
        let service = axum::serve(listener, router(vault.clone()))
            .with_graceful_shutdown(cancel.clone().cancelled_owned());
        TaskTracker::new().spawn(async move { service.await.expect("served") });
        let client = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .build()
            .expect("a client");
        Self {
            folder,
            store,
            vault,
            signer,
            gateway,
            client,
            objects_folder,
            socket,
            server: None,
            _stop: cancel.drop_guard(),
        }
    }

    pub(crate) async fn learner(&self, name: &str) -> LearnerId {
        let id: LearnerId = name.parse().expect("a label");
        let new = NewLearner {
            id: id.clone(),
            class: "default".parse().expect("a label"),
            aliases: Vec::new(),
        };
        Learners::create_learner(&*self.store, &new, now())
            .await
            .expect("made");
        id
    }

    pub(crate) fn token(&self, learner: &LearnerId, epoch: u64) -> String {
        let pod = PodUid(Uuid::from_u128(u128::from(epoch) + 100));
        self.signer
            .learner_token(learner, Epoch(epoch), pod, now())
            .expect("signed")
    }

    /// An incarnation's first contact.
    pub(crate) async fn pod(&self, learner: &LearnerId, epoch: u64) -> Pod<'_> {
        let mut pod = Pod {
            desk: self,
            learner: learner.clone(),
            epoch,
            head: Head {
                generation: Generation(0),
                snapshot_id: None,
                repository: carrel_core::RepositoryId(Uuid::nil()),
                recent_gaps_seconds: Vec::new(),
                opaque_learner: String::new(),
            },
            key: None,
        };
        pod.head = pod.get("head").await.expect("a head");
        pod.key = Some(pod.get("key").await.expect("a key"));
        pod
    }

    pub(crate) fn repository(&self, head: &Head) -> PathBuf {
        self.objects_folder.join(head.repository.to_string())
    }
}

pub(crate) struct Pod<'a> {
    pub(crate) desk: &'a Desk,
    pub(crate) learner: LearnerId,
    pub(crate) epoch: u64,
    pub(crate) head: Head,
    pub(crate) key: Option<DataKey>,
}

/// A refusal: status and code.
pub(crate) type Refused = (u16, String);

impl Pod<'_> {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://vault/v1/learners/{}/{path}", self.learner)
    }

    pub(crate) fn token(&self) -> String {
        self.desk.token(&self.learner, self.epoch)
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, Refused> {
        let request = self
            .desk
            .client
            .get(self.url(path))
            .bearer_auth(self.token());
        answer(request).await
    }

    pub(crate) fn limits() -> Limits {
        Limits {
            max_bytes: 64 << 20,
            max_files: 10_000,
            max_path_bytes: 1024,
            exclude: vec!["node_modules".to_owned(), ".cache".to_owned()],
        }
    }

    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots {
            program: worker(),
            arguments: Vec::new(),
            repository: Repository {
                authorities: String::new(),
                endpoint: Endpoint::Unix(self.desk.socket.clone()),
                learner: self.learner.clone(),
                token: self.token(),
                key: self.key.clone().expect("the key was fetched"),
            },
            limits: Self::limits(),
            timeout: Duration::from_mins(1),
        }
    }

    pub(crate) async fn backup(&self, workspace: &Path) -> BackupOutcome {
        self.snapshots()
            .backup(workspace, self.head.snapshot_id.as_ref())
            .await
            .expect("a snapshot")
    }

    pub(crate) fn request(&self, snapshot: &SnapshotId) -> CommitRequest {
        CommitRequest {
            epoch: Epoch(self.epoch),
            generation: self.head.generation.next(),
            parent_snapshot_id: self.head.snapshot_id.clone(),
            snapshot_id: snapshot.clone(),
            figures: carrel_protocol::vault::SnapshotFigures::default(),
            turn_id: None,
            result: None,
        }
    }

    pub(crate) async fn put_head(&self, request: &CommitRequest) -> Result<CommitAnswer, Refused> {
        let call = self.desk.client.put(self.url("head"));
        answer(call.bearer_auth(self.token()).json(request)).await
    }

    /// Snapshots and commits; what a turn's end is.
    pub(crate) async fn save(&mut self, workspace: &Path) -> BackupOutcome {
        let outcome = self.backup(workspace).await;
        let request = self.request(&outcome.snapshot_id);
        // A sidecar asks again where the storage broke off while the snapshot was read back.
        let mut answer = self.put_head(&request).await;
        for _ in 0..3 {
            if let Err((503, _)) = answer {
                answer = self.put_head(&request).await;
            }
        }
        let answer = answer.expect("committed");
        self.head.generation = answer.generation;
        self.head.snapshot_id = Some(answer.snapshot_id);
        outcome
    }

    pub(crate) async fn restore(&self) -> TempDir {
        let fresh = tempfile::tempdir().expect("a folder");
        let snapshot = self.head.snapshot_id.as_ref().expect("a snapshot");
        self.snapshots()
            .restore(snapshot, fresh.path())
            .await
            .expect("restored");
        fresh
    }

    pub(crate) async fn report_damage(&self) -> Result<Head, Refused> {
        let body = serde_json::json!({"generation": self.head.generation, "detail": "a test"});
        let call = self.desk.client.post(self.url("damage"));
        answer(call.bearer_auth(self.token()).json(&body)).await
    }
}

pub(crate) async fn answer<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<T, Refused> {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(answer.json().await.expect("of the right shape"));
    }
    let problem: serde_json::Value = answer.json().await.unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or_default().to_owned();
    Err((status, code))
}

pub(crate) fn worker() -> PathBuf {
    let tests = std::env::current_exe().expect("this program's path");
    let target = tests
        .parent()
        .and_then(Path::parent)
        .expect("two folders up");
    let worker = target.join("examples/snapshot-worker");
    assert!(
        worker.exists(),
        "run 'cargo build -p carrel-vault --example snapshot-worker' before single tests"
    );
    worker
}
