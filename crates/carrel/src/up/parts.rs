//! Starts every role in this process, in the order in which they need each other, and stops them in the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_core::{ClassName, LearnerId};
use carrel_fleet_local::{Budget, LocalFleet, WantedIsolation};
use carrel_gateway::Handle as Gateway;
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::{Fleet as _, IsolationReport};
use carrel_protocol::token::{Signer, Verifier};
use carrel_store::SharedStore;
use carrel_store::learners::{Created, NewLearner};
use carrel_store_sqlite::SqliteStore;
use carrel_telemetry::{Health, Readiness};
use carrel_vault::{Keyring, Objects, Vault};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::data::{self, Data};
use super::models::{self, Models};
use super::serve;
use super::vault_port::LocalVault;
use crate::cli::Up;
use crate::config::{Config, Isolation, Loaded};
use crate::exit::{Failure, Kind};
use crate::paths;
use crate::run_file::RunFile;

/// The learner whom the printed link signs in.
const ME: &str = "me";
/// What is left of the stop's time for everything but the learners.
const AFTER_DRAIN: Duration = Duration::from_secs(4);
/// Beside the processors that each restore and start keeps busy.
const STARTING: u32 = 8;

/// Everything that runs.
pub(super) struct Parts {
    pub(super) run: RunFile,
    pub(super) chat_link: String,
    pub(super) console_link: String,
    pub(super) notices: Vec<String>,
    run_dir: PathBuf,
    gateway: Gateway,
    fleet: LocalFleet,
    store: Arc<SqliteStore>,
    tracker: TaskTracker,
    /// Ends everything.
    cancel: CancellationToken,
    /// Cancelled when a part ends by itself.
    ended: CancellationToken,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the roles' clock is read"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) async fn start(flags: &Up, data: &Data, loaded: Loaded) -> anyhow::Result<Parts> {
    let config = &loaded.config;
    let dir = &data.dir;
    let run_dir = paths::run_dir(dir).context("preparing the run folder")?;
    let executable = paths::shared_executable(&run_dir).context("sharing our executable")?;
    let signer = signing_key(dir, config)?;
    let admin_token_file = dir.join(&config.keys.admin_token_file);
    let admin_token = data::read_or_make(&admin_token_file, || Ok(carrel_gateway::new_secret()))?;
    let admin_token = admin_token.trim().to_owned();

    let store = Arc::new(open_store(dir, config).await?);
    let shared: SharedStore = Arc::<SqliteStore>::clone(&store);
    apply_documents(&shared, &loaded).await?;

    let gateway_address = flags.listen.as_deref().unwrap_or(&config.gateway.listen);
    let router_address = flags
        .model_listen
        .as_deref()
        .unwrap_or(&config.router.listen);
    let (gateway_listener, gateway_bound) = serve::bind(gateway_address, "--listen").await?;
    let (router_listener, router_bound) = serve::bind(router_address, "--model-listen").await?;
    let public_url = match config.gateway.public_url.trim_end_matches('/') {
        "" => format!("http://{gateway_bound}"),
        url => url.to_owned(),
    };

    let (tracker, cancel, ended) = (
        TaskTracker::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let readiness = Readiness::default();
    let mut registry = carrel_telemetry::registry(env!("CARGO_PKG_VERSION"));

    let vault = vault(dir, config, &shared, &signer)?;
    let vault_socket = run_dir.join("vault.sock");
    let vault_listener = serve::bind_unix(&vault_socket)?;
    let vault_app = carrel_vault::router(vault.clone());
    tracker.spawn(serve::unix(vault_listener, vault_app, cancel.clone()));
    tracker.spawn({
        let (vault, cancel) = (vault.clone(), cancel.clone());
        async move { vault.run(cancel).await }
    });

    // We hold the data folder alone: whatever is reserved was reserved by a router that died.
    shared.sweep_reservations(now(), now()).await?;
    let Models {
        options,
        names,
        notice,
    } = models::options(config, &admin_token)?;
    let router_metrics = carrel_router::Metrics::default();
    router_metrics.register(&mut registry);
    let verifier = Verifier::new(std::slice::from_ref(signer.public_key()))?;
    let router = carrel_router::Service::new(
        options,
        carrel_router::Ports {
            ledger: Arc::<SqliteStore>::clone(&store),
            policy: Arc::new(carrel_router::StorePolicy(Arc::clone(&shared))),
            verifier,
            clock: Arc::new(now),
            metrics: router_metrics,
        },
    )?;
    tracker.spawn({
        let (cancel, ended) = (cancel.clone(), ended.clone());
        async move {
            if let Err(error) = router.run(router_listener, cancel).await {
                tracing::error!(%error, "the router failed");
            }
            ended.cancel();
        }
    });

    let gateway_signer = Signer::from_pem(&Signer::generate_pem()?)?;
    let fleet = LocalFleet::start(carrel_fleet_local::Options {
        store: Arc::clone(&shared),
        callers: vec![gateway_signer.public_key().clone()],
        signer,
        executable,
        images_dir: dir.join("images"),
        run_dir: run_dir.clone(),
        vault: Endpoint::Unix(vault_socket),
        router: Endpoint::Url(format!("http://{router_bound}")),
        isolation: wanted(flags.isolation.unwrap_or(config.fleet.isolation)),
        budget: Budget {
            live: config.fleet.max_live,
            starting: STARTING,
            per_second: config.fleet.starts_per_second,
        },
        clock: now,
        time_zone: "UTC".to_owned(),
        locale: "C.UTF-8".to_owned(),
    })
    .await?;
    let isolation = fleet.isolation();

    let gateway_metrics = carrel_gateway::Metrics::register(&mut registry);
    let gateway = carrel_gateway::start(
        carrel_gateway::Options {
            store: Arc::clone(&shared),
            fleet: Arc::new(fleet.clone()),
            vault: Arc::new(LocalVault(vault)),
            signer: gateway_signer,
            limits: limits(config),
            public_url: public_url.clone(),
            admin_token_hash: carrel_gateway::hash_of(&admin_token),
            clock: carrel_gateway::Clock::new(now),
            metrics: gateway_metrics,
            health: Health::new(readiness, Arc::new(registry)),
            alone: true,
        },
        tracker.clone(),
        cancel.clone(),
    );
    tracker.spawn(carrel_gateway::serve(
        gateway_listener,
        gateway.router(),
        tracker.clone(),
        cancel.clone(),
    ));

    let said = |problem: carrel_protocol::Problem| Failure::new(Kind::Failed, problem.to_string());
    let chat_link = gateway
        .chat_link(me(&shared).await?)
        .await
        .map_err(said)?
        .url;
    let console_link = gateway.console_link().await.map_err(said)?.url;
    Ok(Parts {
        run: run_file(
            &public_url,
            &format!("http://{router_bound}"),
            dir,
            &admin_token_file,
            &isolation,
            names,
        ),
        chat_link,
        console_link,
        notices: [notice, isolation.warning]
            .into_iter()
            .filter(|n| !n.is_empty())
            .collect(),
        run_dir,
        gateway,
        fleet,
        store,
        tracker,
        cancel,
        ended,
    })
}

impl Parts {
    /// Intake closes, running turns finish or are parked, awake learners take their snapshots, everything ends.
    pub(super) async fn stop(&self, within: Duration) {
        let learners = within.saturating_sub(AFTER_DRAIN);
        let asleep = async {
            let turns = self.gateway.drain();
            let fleet = self.fleet.drain(learners);
            tokio::join!(turns, fleet);
        };
        if tokio::time::timeout(learners, asleep).await.is_err() {
            tracing::warn!("turns that did not end in time run again at the next start");
        }
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(AFTER_DRAIN, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
        self.store.close().await;
        if let Err(error) = std::fs::remove_dir_all(&self.run_dir) {
            tracing::warn!(dir = %self.run_dir.display(), %error, "the run folder stays");
        }
    }

    /// Waits until a part ends that must not: its name.
    pub(super) async fn failed(&self) -> &'static str {
        self.ended.cancelled().await;
        "the model router"
    }
}

fn signing_key(dir: &Path, config: &Config) -> anyhow::Result<Signer> {
    let path = dir.join(&config.keys.signing_key_file);
    let pem = data::read_or_make(&path, || Ok(Signer::generate_pem()?))?;
    Signer::from_pem(&pem).with_context(|| format!("reading {}", path.display()))
}

async fn open_store(dir: &Path, config: &Config) -> anyhow::Result<SqliteStore> {
    let file = config.store.url.trim_start_matches("sqlite:");
    Ok(SqliteStore::open(&dir.join(file)).await?)
}

fn vault(
    dir: &Path,
    config: &Config,
    store: &SharedStore,
    signer: &Signer,
) -> anyhow::Result<Vault> {
    let folder = dir.join(config.objects.url.trim_start_matches("file:"));
    Ok(Vault::new(carrel_vault::Options {
        store: Arc::clone(store),
        objects: Objects::local(folder)?,
        keyring: Keyring::read_or_create(&dir.join(&config.keys.kek_file))?,
        verifier: Verifier::new(std::slice::from_ref(signer.public_key()))?,
        password_folder: dir.join("restic"),
        clock: Arc::new(now),
    }))
}

/// Writes the classes of the configuration, makes its learners, and sees to it that a class `default` exists.
async fn apply_documents(store: &SharedStore, loaded: &Loaded) -> anyhow::Result<()> {
    let default: ClassName = DEFAULT_CLASS.parse()?;
    if store.class(&default).await?.is_none() {
        store.put_class(&default, &ClassSpec::default()).await?;
    }
    for class in &loaded.classes {
        store.put_class(&class.name, &class.spec).await?;
    }
    for learner in &loaded.learners {
        create(store, &learner.id, &learner.class).await?;
        store.set_desired_state(&learner.id, learner.state).await?;
    }
    Ok(())
}

async fn me(store: &SharedStore) -> anyhow::Result<LearnerId> {
    let id: LearnerId = ME.parse()?;
    if store.learner(&id, now()).await?.is_none() {
        create(store, &id, &DEFAULT_CLASS.parse()?).await?;
    }
    Ok(id)
}

async fn create(store: &SharedStore, id: &LearnerId, class: &ClassName) -> anyhow::Result<()> {
    let new = NewLearner {
        id: id.clone(),
        class: class.clone(),
        aliases: Vec::new(),
    };
    match store.create_learner(&new, now()).await? {
        Created::New | Created::Same => Ok(()),
        Created::Differs => {
            store.change_learner(id, Some(class), None).await?;
            Ok(())
        }
        Created::AliasTaken(_) | Created::StillErasing => {
            let message = format!("learner '{id}' is being erased: start again when it is gone");
            Err(Failure::new(Kind::Conflict, message).into())
        }
    }
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

fn run_file(
    gateway_url: &str,
    model_url: &str,
    dir: &Path,
    admin_token_file: &Path,
    isolation: &IsolationReport,
    providers: Vec<String>,
) -> RunFile {
    RunFile {
        gateway_url: gateway_url.to_owned(),
        model_url: model_url.to_owned(),
        data_dir: dir.display().to_string(),
        admin_token_file: admin_token_file.display().to_string(),
        isolation: isolation.isolation.clone(),
        limits_missing: isolation.limits_missing.clone(),
        providers,
        pid: std::process::id(),
    }
}
