//! What the roles of this process stand on, and each role's start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use carrel_core::LearnerId;
use carrel_core::class::DEFAULT_CLASS;
use carrel_fleet_local::{Budget, LocalFleet, WantedIsolation};
use carrel_gateway::{Handle as Gateway, TrustedProxies};
use carrel_protocol::Endpoint;
use carrel_protocol::token::{Signer, Verifier};
use carrel_store::SharedStore;
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{Health, Readiness, Registry, Snapshots};
use carrel_vault::{Keyring, Vault};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::check;
use super::data::{self, Data};
use super::documents;
use super::objects;
use super::serve;
use super::vault_port::LocalVault;
use crate::config::{Config, Isolation, Loaded};
use crate::exit::{Failure, Kind};
use crate::paths;

/// The learner whom the printed link signs in.
const ME: &str = "me";
/// How many incarnations may be starting at once.
const STARTING: u32 = 8;

/// What the gateway measures, and everything that its `/metrics` shows.
pub(super) struct Measured {
    pub(super) gateway: carrel_gateway::Metrics,
    pub(super) registry: Registry,
}

/// What the roles of this process stand on.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) run_dir: PathBuf,
    pub(super) admin_token_file: PathBuf,
    pub(super) admin_token: String,
    pub(super) store: Arc<SqliteStore>,
    pub(super) tracker: TaskTracker,
    /// Ends everything.
    pub(super) cancel: CancellationToken,
    /// Cancelled when a part ends by itself.
    pub(super) ended: CancellationToken,
    dir: PathBuf,
    executable: PathBuf,
    vault_socket: PathBuf,
    signer: Signer,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the roles' clock is read"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

impl Ground {
    /// Opens store and keys, prepares the run folder, and applies the documents.
    pub(super) async fn open(data: &Data, loaded: &Loaded) -> anyhow::Result<Self> {
        let dir = data.dir.clone();
        let config = loaded.config.clone();
        let run_dir = paths::make_run_dir(&dir).context("preparing the run folder")?;
        let admin_token_file = dir.join(&config.keys.admin_token_file);
        let admin_token =
            data::read_or_make(&admin_token_file, || Ok(carrel_gateway::new_secret()))?;
        let ground = Self {
            executable: paths::shared_executable(&run_dir).context("sharing our executable")?,
            signer: signing_key(&dir, &config)?,
            store: Arc::new(SqliteStore::open(&store_file(&dir, &config)).await?),
            vault_socket: run_dir.join("vault.sock"),
            admin_token: admin_token.trim().to_owned(),
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            ended: CancellationToken::new(),
            admin_token_file,
            run_dir,
            dir,
            config,
        };
        documents::apply(&ground.shared(), loaded, now()).await?;
        Ok(ground)
    }

    fn shared(&self) -> SharedStore {
        Arc::<SqliteStore>::clone(&self.store)
    }

    fn verifier(&self) -> anyhow::Result<Verifier> {
        Ok(Verifier::new(std::slice::from_ref(
            self.signer.public_key(),
        ))?)
    }

    /// The learner of the printed link, made when it is not there.
    pub(super) async fn me(&self) -> anyhow::Result<LearnerId> {
        let id: LearnerId = ME.parse()?;
        let store = self.shared();
        if store.learner(&id, now()).await?.is_none() {
            documents::create(&store, &id, &DEFAULT_CLASS.parse()?, now()).await?;
        }
        Ok(id)
    }

    pub(super) async fn start_vault(&self, snapshots: &Snapshots) -> anyhow::Result<Vault> {
        let has_snapshots = objects::has_snapshots(&*self.store, now()).await?;
        let kek = self.dir.join(&self.config.keys.kek_file);
        if has_snapshots && !kek.exists() {
            let message = format!(
                "keys.kekFile: {} is not there, and learners have snapshots that only the key in it opens: put it back",
                kek.display()
            );
            return Err(Failure::new(Kind::Usage, message).into());
        }
        let objects = objects::open(&self.dir, &self.config.objects, has_snapshots).await?;
        let vault = Vault::new(carrel_vault::Options {
            store: self.shared(),
            objects,
            keyring: Keyring::read_or_create(&kek)?,
            verifier: self.verifier()?,
            password_folder: self.dir.join("restic"),
            clock: Arc::new(now),
            snapshots: snapshots.clone(),
        });
        let listener = serve::bind_unix(&self.vault_socket)?;
        let app = carrel_vault::router(vault.clone());
        self.tracker
            .spawn(serve::unix(listener, app, self.cancel.clone()));
        let (keeper, cancel) = (vault.clone(), self.cancel.clone());
        self.tracker.spawn(async move { keeper.run(cancel).await });
        Ok(vault)
    }

    pub(super) async fn start_router(
        &self,
        listener: TcpListener,
        options: carrel_router::Options,
        registry: &mut Registry,
    ) -> anyhow::Result<carrel_router::Service> {
        use carrel_store::Ledger as _;
        // We hold the data folder alone: whatever is reserved was reserved by a router that died.
        self.store.sweep_reservations(now(), now()).await?;
        let metrics = carrel_router::Metrics::default();
        metrics.register(registry);
        let ports = carrel_router::Ports {
            ledger: Arc::<SqliteStore>::clone(&self.store),
            policy: Arc::new(carrel_router::StorePolicy(self.shared())),
            verifier: self.verifier()?,
            clock: Arc::new(now),
            metrics,
        };
        let router = carrel_router::Service::new(options, ports)?;
        let (served, cancel, ended) = (router.clone(), self.cancel.clone(), self.ended.clone());
        self.tracker.spawn(async move {
            if let Err(error) = served.run(listener, cancel).await {
                tracing::error!(%error, "the router failed");
            }
            ended.cancel();
        });
        Ok(router)
    }

    pub(super) async fn start_fleet(
        &self,
        gateway: &Signer,
        model_url: &str,
        isolation: Isolation,
        metrics: carrel_fleet_local::Metrics,
    ) -> anyhow::Result<LocalFleet> {
        let options = carrel_fleet_local::Options {
            store: self.shared(),
            callers: vec![gateway.public_key().clone()],
            signer: self.signer.clone(),
            executable: self.executable.clone(),
            images_dir: self.dir.join("images"),
            run_dir: self.run_dir.clone(),
            vault: Endpoint::Unix(self.vault_socket.clone()),
            router: Endpoint::Url(model_url.to_owned()),
            isolation: wanted(isolation),
            budget: Budget {
                live: self.config.fleet.max_live,
                starting: STARTING,
                per_second: self.config.fleet.starts_per_second,
            },
            clock: now,
            time_zone: "UTC".to_owned(),
            locale: "C.UTF-8".to_owned(),
            metrics,
        };
        Ok(LocalFleet::start(options).await?)
    }

    pub(super) fn start_gateway(
        &self,
        listener: TcpListener,
        signer: Signer,
        fleet: &LocalFleet,
        vault: Vault,
        public_url: &str,
        measured: Measured,
    ) -> Gateway {
        let options = carrel_gateway::Options {
            store: self.shared(),
            fleet: Arc::new(fleet.clone()),
            vault: Arc::new(LocalVault(vault)),
            signer,
            limits: limits(&self.config),
            public_url: public_url.to_owned(),
            trusted_proxies: TrustedProxies::parse(&self.config.gateway.trusted_proxies)
                .unwrap_or_default(),
            admin_token_hash: carrel_gateway::hash_of(&self.admin_token),
            clock: carrel_gateway::Clock::new(now),
            metrics: measured.gateway,
            health: Health::new(Readiness::default(), Arc::new(measured.registry)),
            alone: true,
        };
        let gateway = carrel_gateway::start(options, self.tracker.clone(), self.cancel.clone());
        let (tracker, cancel) = (self.tracker.clone(), self.cancel.clone());
        self.tracker.spawn(carrel_gateway::serve(
            listener,
            gateway.router(),
            tracker,
            cancel,
        ));
        gateway
    }
}

/// Where the store lies.
pub(super) fn store_file(dir: &Path, config: &Config) -> PathBuf {
    dir.join(config.store.url.trim_start_matches("sqlite:"))
}

fn signing_key(dir: &Path, config: &Config) -> anyhow::Result<Signer> {
    let path = dir.join(&config.keys.signing_key_file);
    let pem = data::read_or_make(&path, || Ok(Signer::generate_pem()?))?;
    check::signer(&path, &pem)
}

fn wanted(isolation: Isolation) -> WantedIsolation {
    match isolation {
        Isolation::Auto => WantedIsolation::Auto,
        Isolation::Oci => WantedIsolation::Oci,
        Isolation::Process => WantedIsolation::Process,
    }
}

fn limits(config: &Config) -> carrel_gateway::Limits {
    let bytes = |bytes: carrel_core::class::Bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX);
    carrel_gateway::Limits {
        message_bytes: bytes(config.limits.message_bytes),
        attachment_bytes: bytes(config.limits.attachment_bytes),
        messages_per_minute: config.limits.messages_per_minute,
    }
}
