//! One role as a process of its own: any number of gateways, routers and vaults, and one fleet, on one database and one bucket.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_core::OwnerId;
use carrel_fleet_local::LocalFleet;
use carrel_gateway::{Handle as Gateway, StoreFleet};
use carrel_protocol::token::{PublicKey, Verifier};
use carrel_store::processes::{Lead, Process, Role as Task};
use carrel_telemetry::{Health, Readiness, Registry, Snapshots, Wakes};
use serde_json::json;
use uuid::Uuid;

use super::base::{Base, FleetParts, GatewayParts, now};
use super::reload::{self, Watch};
use super::vault_client::RemoteVault;
use super::{AFTER_DRAIN, STOP, documents, keys, models, parts, serve};
use crate::cli::{self, UpOutput};
use crate::config::Loaded;
use crate::exit::{Failure, Kind};
use crate::{output, paths};

/// How often a fleet says that it is there, and for how long each time.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
const ANNOUNCED_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(20);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Role {
    Gateway,
    Router,
    Vault,
    Fleet,
}

/// What has to end in an order of its own.
enum Running {
    Gateway(Gateway),
    Fleet(LocalFleet, Lead),
    Other,
}

/// A role that runs.
pub(super) struct Single {
    base: Base,
    running: Running,
}

/// Starts a role and says where it is.
pub(super) async fn start(
    role: Role,
    flags: &cli::Role,
    dir: &Path,
    file: Option<&Path>,
    loaded: Loaded,
) -> anyhow::Result<Single> {
    let base = Base::open(dir, &loaded).await?;
    if base.store.is_ours_alone() {
        let message = "store.url: roles that are processes of their own share a database: it must begin with 'postgres://'; \
            'carrel up' runs all of them in one process on a file";
        return Err(Failure::new(Kind::Usage, message).into());
    }
    let mut registry = carrel_telemetry::registry(env!("CARGO_PKG_VERSION"));
    let health = flags.health_listen.as_ref();
    let health = health.unwrap_or(&base.config.health.listen);
    let (health_listener, health_bound) = serve::bind(health, "--health-listen").await?;
    let (running, url) = match role {
        Role::Gateway => {
            let (gateway, url) = gateway(&base, flags, &loaded, registry).await?;
            base.serve_tcp(health_listener, gateway.health());
            (Running::Gateway(gateway), url)
        }
        Role::Router | Role::Vault | Role::Fleet => {
            let started = match role {
                Role::Router => router(&base, flags, file, loaded, &mut registry).await?,
                Role::Vault => vault(&base, flags, &mut registry).await?,
                _ => fleet(&base, &mut registry).await?,
            };
            let health = Health::new(Readiness::default(), Arc::new(registry));
            base.serve_tcp(health_listener, health.router());
            started
        }
    };
    say(role, flags.output, &url, &format!("http://{health_bound}"))?;
    Ok(Single { base, running })
}

fn say(role: Role, format: UpOutput, url: &str, health_url: &str) -> anyhow::Result<()> {
    let pid = std::process::id();
    match format {
        UpOutput::Json => output::line(
            &json!({"role": role.to_string(), "url": url, "health_url": health_url, "pid": pid})
                .to_string(),
        ),
        UpOutput::Text => {
            let at = if url.is_empty() {
                String::new()
            } else {
                format!(" at {url}")
            };
            output::line(&format!("The {role} is ready{at}; health at {health_url}."))
        }
    }
}

async fn listener(
    flags: &cli::Role,
    configured: &str,
) -> anyhow::Result<(tokio::net::TcpListener, String)> {
    let address = flags.listen.as_deref().unwrap_or(configured);
    let (listener, bound) = serve::bind(address, "--listen").await?;
    Ok((listener, format!("http://{bound}")))
}

async fn gateway(
    base: &Base,
    flags: &cli::Role,
    loaded: &Loaded,
    mut registry: Registry,
) -> anyhow::Result<(Gateway, String)> {
    let (config, files) = (&base.config, &base.config.keys);
    let signer = keys::published(
        &base.dir.join(&files.gateway_key_file),
        &base.dir.join(&files.gateway_verifying_keys_file),
    )?;
    let admin_token = keys::admin_token(&base.dir.join(&files.admin_token_file))?;
    documents::apply(&base.shared(), loaded, now()).await?;
    let (listener, url) = listener(flags, &config.gateway.listen).await?;
    let fleet = StoreFleet {
        store: base.shared(),
        signer: signer.clone(),
        clock: carrel_gateway::Clock::new(now),
        tracker: base.tracker.clone(),
    };
    let (wakes, snapshots) = (
        Wakes::register(&mut registry),
        Snapshots::register(&mut registry),
    );
    let metrics = carrel_gateway::Metrics::register(&mut registry, wakes, snapshots);
    let parts = GatewayParts {
        vault: Arc::new(RemoteVault::new(
            &config.gateway.vault_url,
            signer.clone(),
            now,
        )?),
        signer,
        fleet: fleet.shared(),
        public_url: base.public_url(&url),
        relay_url: match config.gateway.relay_url.as_str() {
            "" => url.clone(),
            configured => configured.to_owned(),
        },
        admin_token,
        metrics,
        registry,
    };
    let gateway = base.start_gateway(listener, parts);
    Ok((gateway, url))
}

async fn router(
    base: &Base,
    flags: &cli::Role,
    file: Option<&Path>,
    loaded: Loaded,
    registry: &mut Registry,
) -> anyhow::Result<(Running, String)> {
    let admin_token = keys::admin_token(&base.dir.join(&base.config.keys.admin_token_file))?;
    let models = models::options(&base.config)?.with_admin(&admin_token);
    let (listener, url) = listener(flags, &base.config.router.listen).await?;
    let router = base
        .start_router(listener, models.options, pods(base)?, registry)
        .await?;
    if let Some(file) = file {
        let watch = Watch::new(file.to_path_buf(), loaded, admin_token);
        base.tracker
            .spawn(reload::run(watch, router, base.cancel.clone()));
    }
    Ok((Running::Other, url))
}

async fn vault(
    base: &Base,
    flags: &cli::Role,
    registry: &mut Registry,
) -> anyhow::Result<(Running, String)> {
    let gateways = Verifier::new(&gateways(base)?)?;
    let snapshots = Snapshots::register(registry);
    let vault = base.start_vault(pods(base)?, gateways, &snapshots).await?;
    let (listener, url) = listener(flags, &base.config.vault.listen).await?;
    base.serve_tcp(listener, carrel_vault::router(vault));
    Ok((Running::Other, url))
}

async fn fleet(base: &Base, registry: &mut Registry) -> anyhow::Result<(Running, String)> {
    let (config, files) = (&base.config, &base.config.keys);
    let lead = parts::lead_fleet(base).await?;
    let run_dir = paths::make_run_dir(&base.dir).context("preparing the run folder")?;
    let wakes = Wakes::register(registry);
    let endpoint = |key: &str, url: &str| {
        url.parse()
            .map_err(|error| Failure::new(Kind::Usage, format!("gateway.{key}: {error}")))
    };
    let fleet = base.start_fleet(FleetParts {
        signer: keys::published(
            &base.dir.join(&files.signing_key_file),
            &base.dir.join(&files.verifying_keys_file),
        )?,
        callers: gateways(base)?,
        executable: paths::shared_executable(&run_dir).context("sharing our executable")?,
        run_dir,
        vault: endpoint("vaultUrl", &config.gateway.vault_url)?,
        router: endpoint("routerUrl", &config.gateway.router_url)?,
        isolation: config.fleet.isolation,
        metrics: carrel_fleet_local::Metrics::register(registry, wakes),
    });
    let fleet = fleet.await?;
    announce(base, &fleet);
    Ok((Running::Fleet(fleet, lead), String::new()))
}

/// Says that the fleet is there, and how it keeps learners apart.
fn announce(base: &Base, fleet: &LocalFleet) {
    let (store, cancel) = (base.shared(), base.cancel.clone());
    let process = Process {
        id: OwnerId(Uuid::now_v7()),
        role: Task::Fleet,
        address: String::new(),
        report: serde_json::to_string(&fleet.report()).unwrap_or_default(),
    };
    base.tracker.spawn(async move {
        let mut due = tokio::time::interval(ANNOUNCE_EVERY);
        while cancel.run_until_cancelled(due.tick()).await.is_some() {
            let told = store.announce(&process, now(), now() + ANNOUNCED_FOR).await;
            if let Err(error) = told {
                tracing::warn!(%error, "gateways are not told that the fleet is there");
            }
        }
        // A gateway that asks meanwhile is told of none.
        drop(store.withdraw(process.id).await);
    });
}

fn pods(base: &Base) -> anyhow::Result<Verifier> {
    let file = base.dir.join(&base.config.keys.verifying_keys_file);
    let keys = keys::public(&file, "keys.verifyingKeysFile", "carrel fleet")?;
    Ok(Verifier::new(&keys)?)
}

fn gateways(base: &Base) -> anyhow::Result<Vec<PublicKey>> {
    let file = base.dir.join(&base.config.keys.gateway_verifying_keys_file);
    keys::public(&file, "keys.gatewayVerifyingKeysFile", "carrel gateway")
}

impl Single {
    /// Waits until the role cannot go on; why.
    pub(super) async fn failed(&self) -> &'static str {
        let taken = async {
            match &self.running {
                Running::Fleet(_, lead) => self.kept(lead).await,
                Running::Gateway(_) | Running::Other => pending().await,
            }
        };
        tokio::select! {
            part = self.base.ended.part() => part,
            () = taken => "the fleet's task, which another has taken,",
        }
    }

    /// Returns when another fleet has the task. That the database was away is no reason to end every learner's pod.
    async fn kept(&self, lead: &Lead) {
        lead.lost().await;
        loop {
            match self
                .base
                .shared()
                .lead(carrel_store::processes::Task::Fleet)
                .await
            {
                Ok(Some(again)) => again.lost().await,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "whether this is still the only fleet is asked again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// What runs ends well, as far as there is time.
    pub(super) async fn stop(&self) {
        let learners = STOP.saturating_sub(AFTER_DRAIN);
        match &self.running {
            Running::Gateway(gateway) => {
                if tokio::time::timeout(learners, gateway.drain())
                    .await
                    .is_err()
                {
                    tracing::warn!("turns that did not end in time go on at another gateway");
                }
            }
            Running::Fleet(fleet, _) => fleet.drain(learners).await,
            Running::Other => {}
        }
        if tokio::time::timeout(AFTER_DRAIN, self.base.close())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
    }
}
