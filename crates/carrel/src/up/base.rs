//! What a server process stands on, and each role's start on it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use carrel_fleet_local::{Budget, LocalFleet, WantedIsolation};
use carrel_gateway::{Handle as Gateway, TrustedProxies, VaultAdmin};
use carrel_protocol::Endpoint;
use carrel_protocol::fleet::Fleet;
use carrel_protocol::token::{PublicKey, Signer, Verifier};
use carrel_store::SharedStore;
use carrel_telemetry::{Health, Readiness, Registry, Snapshots};
use carrel_vault::{Keyring, Vault};
use carrel_wire::Incoming;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::Certificates;
use super::objects;
use super::serve;
use super::store::Opened;
use crate::config::{Config, Isolation, Loaded};
use crate::exit::{Failure, Kind};

/// How often a role that is a process of its own looks whether the store answers.
const STORE_LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// How many incarnations may be starting at once.
const STARTING: u32 = 8;

/// What the roles of a process stand on.
pub(super) struct Base {
    pub(super) config: Config,
    /// Where relative files lie.
    pub(super) dir: PathBuf,
    pub(super) store: Opened,
    pub(super) certificates: Certificates,
    pub(super) tracker: TaskTracker,
    /// Ends everything.
    pub(super) cancel: CancellationToken,
    /// It was asked to end.
    pub(super) stopping: CancellationToken,
    pub(super) ended: Ended,
}

/// That a part ended by itself, and which.
#[derive(Clone, Default)]
pub(super) struct Ended {
    is_over: CancellationToken,
    part: Arc<OnceLock<&'static str>>,
}

impl Ended {
    pub(super) fn says(&self, part: &'static str) {
        // Only the first is the reason.
        self.part.get_or_init(|| part);
        self.is_over.cancel();
    }

    /// Waits for a part that ends although it must not: its name.
    pub(super) async fn part(&self) -> &'static str {
        self.is_over.cancelled().await;
        self.part.get().copied().unwrap_or_default()
    }
}

/// What a fleet is told besides.
pub(super) struct FleetParts {
    pub(super) signer: Signer,
    /// Who else may call sidecars.
    pub(super) callers: Vec<PublicKey>,
    pub(super) executable: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) vault: Endpoint,
    pub(super) router: Endpoint,
    /// How gateways on other machines reach the pods.
    pub(super) door: Option<String>,
    pub(super) isolation: Isolation,
    pub(super) metrics: carrel_fleet_local::Metrics,
}

/// What a gateway is told besides.
pub(super) struct GatewayParts {
    pub(super) signer: Signer,
    pub(super) fleet: Arc<dyn Fleet>,
    pub(super) vault: Arc<dyn VaultAdmin>,
    pub(super) public_url: String,
    /// Where other gateways reach it.
    pub(super) relay_url: String,
    pub(super) admin_token: String,
    pub(super) metrics: carrel_gateway::Metrics,
    /// Everything that its `/metrics` shows.
    pub(super) registry: Registry,
    /// What its `/readyz` says is missing, the store apart.
    pub(super) readiness: Readiness,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the roles' clock is read"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

impl Base {
    pub(super) async fn open(
        dir: &Path,
        loaded: &Loaded,
        certificates: Certificates,
    ) -> anyhow::Result<Self> {
        let config = loaded.config.clone();
        let base = Self {
            store: Opened::open(dir, &config.store).await?,
            certificates,
            dir: dir.to_path_buf(),
            config,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            stopping: CancellationToken::new(),
            ended: Ended::default(),
        };
        let (dir, tls) = (base.dir.clone(), base.config.tls.clone());
        let follow = base.certificates.clone();
        base.tracker
            .spawn(follow.follow(dir, tls, base.cancel.clone()));
        Ok(base)
    }

    /// Connections at a role's own address.
    fn incoming(&self, listener: TcpListener) -> Incoming {
        Incoming::new(listener, self.certificates.identity.clone())
    }

    pub(super) fn shared(&self) -> SharedStore {
        self.store.shared()
    }

    /// A vault that looks after sleeping learners; who serves it is the caller's.
    pub(super) async fn start_vault(
        &self,
        pods: Verifier,
        gateways: Verifier,
        snapshots: &Snapshots,
    ) -> anyhow::Result<Vault> {
        let has_snapshots = objects::has_snapshots(&*self.shared(), now()).await?;
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
            verifier: pods,
            gateways,
            password_folder: self.dir.join("restic"),
            clock: Arc::new(now),
            snapshots: snapshots.clone(),
        });
        if has_snapshots && let Err(error) = vault.try_keys().await {
            let message = format!(
                "keys.kekFile: {} does not open what learners' snapshots are encrypted by ({error}): put the right one there",
                kek.display()
            );
            return Err(Failure::new(Kind::Usage, message).into());
        }
        let (keeper, cancel) = (vault.clone(), self.cancel.clone());
        self.tracker.spawn(async move { keeper.run(cancel).await });
        Ok(vault)
    }

    pub(super) async fn start_router(
        &self,
        listener: TcpListener,
        egress: Option<TcpListener>,
        options: carrel_router::Options,
        pods: Verifier,
        registry: &mut Registry,
    ) -> anyhow::Result<carrel_router::Service> {
        if self.store.is_ours_alone() {
            // Whatever is reserved was reserved by a router that died.
            self.shared().sweep_reservations(now(), now()).await?;
        }
        let metrics = carrel_router::Metrics::default();
        metrics.register(registry);
        let ports = carrel_router::Ports {
            ledger: self.shared(),
            policy: Arc::new(carrel_router::StorePolicy(self.shared())),
            verifier: pods,
            clock: Arc::new(now),
            metrics,
        };
        let router = carrel_router::Service::new(options, ports)?;
        let (served, cancel, ended) = (router.clone(), self.cancel.clone(), self.ended.clone());
        if let Some(egress) = egress {
            let (incoming, cancel) = (self.incoming(egress), cancel.clone());
            self.tracker
                .spawn(served.clone().run_egress(incoming, cancel));
        }
        let incoming = self.incoming(listener);
        self.tracker.spawn(async move {
            if let Err(error) = served.run(incoming, cancel).await {
                tracing::error!(%error, "the router failed");
            }
            ended.says("the model router");
        });
        Ok(router)
    }

    pub(super) async fn start_fleet(&self, parts: FleetParts) -> anyhow::Result<LocalFleet> {
        let options = carrel_fleet_local::Options {
            store: self.shared(),
            alone: self.store.is_ours_alone(),
            callers: parts.callers,
            signer: parts.signer,
            executable: parts.executable,
            images_dir: self.dir.join("images"),
            run_dir: parts.run_dir,
            vault: parts.vault,
            router: parts.router,
            door: parts.door,
            trust: self.certificates.trust.clone(),
            isolation: wanted(parts.isolation),
            budget: Budget {
                live: self.config.fleet.max_live,
                starting: STARTING,
                per_second: self.config.fleet.starts_per_second,
            },
            clock: now,
            time_zone: "UTC".to_owned(),
            locale: "C.UTF-8".to_owned(),
            metrics: parts.metrics,
        };
        Ok(LocalFleet::start(options).await?)
    }

    pub(super) fn start_gateway(&self, listener: TcpListener, parts: GatewayParts) -> Gateway {
        let options = carrel_gateway::Options {
            store: self.shared(),
            fleet: parts.fleet,
            vault: parts.vault,
            signer: parts.signer,
            trust: self.certificates.trust.clone(),
            limits: limits(&self.config),
            public_url: parts.public_url,
            relay_url: parts.relay_url,
            trusted_proxies: TrustedProxies::parse(&self.config.gateway.trusted_proxies)
                .unwrap_or_default(),
            admin_token_hash: carrel_gateway::hash_of(&parts.admin_token),
            clock: carrel_gateway::Clock::new(now),
            metrics: parts.metrics,
            health: Health::new(parts.readiness, Arc::new(parts.registry)),
            alone: self.store.is_ours_alone(),
        };
        let gateway = carrel_gateway::start(options, self.tracker.clone(), self.cancel.clone());
        self.serve_tcp(self.incoming(listener), gateway.router());
        gateway
    }

    /// How people reach a gateway that listens at `url`.
    pub(super) fn public_url(&self, url: &str) -> String {
        match self.config.gateway.public_url.trim_end_matches('/') {
            "" => url.to_owned(),
            public => public.to_owned(),
        }
    }

    pub(super) fn serve_unix(&self, path: &Path, app: axum::Router) -> anyhow::Result<()> {
        let listener = serve::bind_unix(path)?;
        self.tracker
            .spawn(serve::until(listener, app, self.cancel.clone()));
        Ok(())
    }

    pub(super) fn serve_vault(&self, listener: TcpListener, vault: Vault) {
        self.serve_tcp(self.incoming(listener), carrel_vault::router(vault));
    }

    /// For gateways on other machines.
    pub(super) fn serve_pods(&self, listener: TcpListener, fleet: &LocalFleet, gateways: Verifier) {
        self.serve_tcp(self.incoming(listener), fleet.door(gateways));
    }

    /// Who probes asks without TLS.
    pub(super) fn serve_health(&self, listener: TcpListener, app: axum::Router) {
        self.serve_tcp(Incoming::new(listener, None), app);
    }

    fn serve_tcp(&self, incoming: Incoming, app: axum::Router) {
        let (tracker, cancel) = (self.tracker.clone(), self.cancel.clone());
        self.tracker
            .spawn(carrel_gateway::serve(incoming, app, tracker, cancel));
    }

    /// Whether the store answers, and whether this process stops.
    pub(super) fn readiness(&self) -> Readiness {
        let readiness = Readiness::default();
        let (store, stopping, told) = (self.shared(), self.stopping.clone(), readiness.clone());
        self.tracker.spawn(async move {
            let answers = || async { store.classes().await.map(drop) };
            tell(&told, &stopping, answers).await;
        });
        readiness
    }

    /// Everything ends; then the store is closed, for nobody is left who would write.
    pub(super) async fn close(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.store.close().await;
    }
}

/// Tells whether the store answers until this process stops, and that, also when an answer is waited for just then.
async fn tell<F>(told: &Readiness, stopping: &CancellationToken, answers: impl Fn() -> F)
where
    F: Future<Output = carrel_store::Result<()>>,
{
    let looks = async {
        let mut due = tokio::time::interval(STORE_LOOKED_AT_EVERY);
        loop {
            due.tick().await;
            match answers().await {
                Ok(()) => told.present("store"),
                Err(error) => told.missing("store", format!("it does not answer ({error})")),
            }
        }
    };
    stopping.run_until_cancelled(looks).await;
    told.missing("process", "it stops");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_says_that_it_stops_also_while_the_store_owes_an_answer() {
        let (told, stopping) = (Readiness::default(), CancellationToken::new());
        let asked = CancellationToken::new();
        let never = || {
            asked.cancel();
            std::future::pending()
        };
        let stops = async {
            asked.cancelled().await;
            stopping.cancel();
        };
        let tells = async { tokio::join!(tell(&told, &stopping, never), stops) };
        let said = tokio::time::timeout(STORE_LOOKED_AT_EVERY, tells).await;
        assert!(said.is_ok(), "it waits for the store");
        assert_eq!(told.list()["process"], "it stops");
    }
}
