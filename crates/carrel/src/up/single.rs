//! One role as a process of its own: any number of gateways, routers and vaults, and one fleet, on one database and one bucket.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_fleet_local::LocalFleet;
use carrel_gateway::{Handle as Gateway, Sidecars, StoreFleet};
use carrel_protocol::fleet::Fleet;
use carrel_protocol::token::{PublicKey, Signer, Verifier};
use carrel_store::processes;
use carrel_telemetry::{Health, Readiness, Registry, Snapshots, Wakes};
use serde_json::json;

use super::base::{Base, FleetParts, GatewayParts, now};
use super::certificates::Certificates;
use super::fleet_task::FleetTask;
use super::reload::{self, Watch};
use super::vault_client::RemoteVault;
use super::{AFTER_DRAIN, STOP, documents, keys, kubernetes, models, objects, serve};
use crate::cli::{self, UpOutput};
use crate::config::{FleetKind, Loaded};
use crate::exit::{Failure, Kind};
use crate::{output, paths};

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
    Fleet(LocalFleet, FleetTask),
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
    let certificates = Certificates::read(dir, &loaded.config.tls)?;
    let base = Base::open(dir, &loaded, certificates).await?;
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
            base.serve_health(health_listener, gateway.health());
            (Running::Gateway(gateway), url)
        }
        Role::Router | Role::Vault | Role::Fleet => {
            let started = match role {
                Role::Router => router(&base, flags, file, loaded, &mut registry).await?,
                Role::Vault => vault(&base, flags, &mut registry).await?,
                _ => fleet(&base, flags, &mut registry).await?,
            };
            let health = Health::new(base.readiness(), Arc::new(registry));
            base.serve_health(health_listener, health.router());
            started
        }
    };
    say(
        &role.to_string(),
        flags.output,
        &url,
        &format!("http://{health_bound}"),
    )?;
    Ok(Single { base, running })
}

pub(super) fn say(role: &str, format: UpOutput, url: &str, health_url: &str) -> anyhow::Result<()> {
    let pid = std::process::id();
    match format {
        UpOutput::Json => output::line(
            &json!({"role": role, "url": url, "health_url": health_url, "pid": pid}).to_string(),
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
    base: &Base,
    flags: &cli::Role,
    configured: &str,
) -> anyhow::Result<(tokio::net::TcpListener, String)> {
    let address = flags.listen.as_deref().unwrap_or(configured);
    let (listener, bound) = serve::bind(address, "--listen").await?;
    let scheme = match base.certificates.identity {
        Some(_) => "https",
        None => "http",
    };
    Ok((listener, format!("{scheme}://{bound}")))
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
    refuse_another_key(base, &signer).await?;
    let admin_token = keys::admin_token(&base.dir.join(&files.admin_token_file))?;
    if config.gateway.fleet == FleetKind::Kubernetes {
        kubernetes::refuse_documents(loaded)?;
    }
    documents::apply(&base.shared(), loaded, now()).await?;
    let (listener, url) = listener(base, flags, &config.gateway.listen).await?;
    let sidecars = Sidecars {
        signer: signer.clone(),
        trust: base.certificates.trust.clone(),
        clock: carrel_gateway::Clock::new(now),
        tracker: base.tracker.clone(),
    };
    let readiness = Readiness::default();
    let fleet: Arc<dyn Fleet> = match config.gateway.fleet {
        FleetKind::Local => Arc::new(StoreFleet {
            store: base.shared(),
            sidecars,
        }),
        FleetKind::Kubernetes => {
            let fleet = kubernetes::fleet(base, sidecars, readiness.clone(), &mut registry);
            Arc::new(fleet.await?)
        }
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
            &base.certificates.trust,
            now,
        )?),
        signer,
        fleet,
        public_url: base.public_url(&url),
        relay_url: reached_at("gateway.relayUrl", &config.gateway.relay_url, &url)?,
        admin_token,
        metrics,
        registry,
        readiness,
    };
    let gateway = base.start_gateway(listener, parts);
    Ok((gateway, url))
}

/// A gateway with a key of its own would claim turns that no sidecar lets it run.
async fn refuse_another_key(base: &Base, signer: &Signer) -> anyhow::Result<()> {
    let ours = carrel_gateway::report(signer);
    let there = base
        .shared()
        .processes(processes::Role::Gateway, now())
        .await?;
    match there.iter().find(|gateway| gateway.report != ours) {
        Some(other) => {
            let message = format!(
                "keys.gatewayKeyFile: the gateway at {} has another key: copy its gateway.key and admin.token here, they are the same for all",
                other.address
            );
            Err(Failure::new(Kind::Conflict, message).into())
        }
        None => Ok(()),
    }
}

/// Where gateways reach this process: they connect to the address as it stands.
fn reached_at(key: &str, configured: &str, listens_at: &str) -> anyhow::Result<String> {
    let url = if configured.is_empty() {
        listens_at
    } else {
        configured
    };
    let url_without_slash = url.trim_end_matches('/');
    let place = url_without_slash.strip_prefix("http://");
    let place = place.or_else(|| url_without_slash.strip_prefix("https://"));
    let is_usable = place.is_some_and(|place| {
        let nowhere = ["0.0.0.0:", "[::]:"];
        place.contains(':')
            && !place.contains('/')
            && !nowhere.iter().any(|at| place.starts_with(at))
    });
    if is_usable {
        return Ok(url_without_slash.to_owned());
    }
    let message = format!(
        "{key}: '{url}' must be how gateways reach this process, as in http://10.0.0.4:7070 or, with tls.certFile, https://"
    );
    Err(Failure::new(Kind::Usage, message).into())
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
    let (listener, url) = listener(base, flags, &base.config.router.listen).await?;
    let egress = serve::bind_egress(&base.config).await?;
    let router = base
        .start_router(listener, egress, models.options, pods(base)?, registry)
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
    shared_by_vaults(base)?;
    let gateways = Verifier::new(&gateways(base)?)?;
    let snapshots = Snapshots::register(registry);
    let vault = base.start_vault(pods(base)?, gateways, &snapshots).await?;
    let (listener, url) = listener(base, flags, &base.config.vault.listen).await?;
    base.serve_vault(listener, vault);
    Ok((Running::Other, url))
}

/// What all vaults must have alike is not made by one of them.
fn shared_by_vaults(base: &Base) -> anyhow::Result<()> {
    let kek = base.dir.join(&base.config.keys.kek_file);
    if !kek.exists() {
        let message = format!(
            "keys.kekFile: {} is not there: make it once, with mode 0600 ('openssl rand -base64 32'), and give every vault the same",
            kek.display()
        );
        return Err(Failure::new(Kind::Usage, message).into());
    }
    objects::refuse_own_folder(&base.config.objects)
}

async fn fleet(
    base: &Base,
    flags: &cli::Role,
    registry: &mut Registry,
) -> anyhow::Result<(Running, String)> {
    let (config, files) = (&base.config, &base.config.keys);
    let task = FleetTask::take(base.shared()).await?;
    let is_open = flags.listen.is_some() || !config.fleet.listen.is_empty();
    let door = if is_open {
        let (listener, url) = listener(base, flags, &config.fleet.listen).await?;
        let reached = reached_at("fleet.url", &config.fleet.url, &url)?;
        Some((listener, url, reached))
    } else {
        None
    };
    let gateways = gateways(base)?;
    let verifier = Verifier::new(&gateways)?;
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
        callers: gateways,
        executable: paths::shared_executable(&run_dir).context("sharing our executable")?,
        run_dir,
        vault: endpoint("vaultUrl", &config.gateway.vault_url)?,
        router: endpoint("routerUrl", &config.gateway.router_url)?,
        door: door.as_ref().map(|(_, _, reached)| reached.clone()),
        isolation: config.fleet.isolation,
        metrics: carrel_fleet_local::Metrics::register(registry, wakes),
    });
    let fleet = fleet.await?;
    FleetTask::announce(base, &fleet);
    let url = door.map(|(listener, url, _)| {
        base.serve_pods(listener, &fleet, verifier);
        url
    });
    Ok((Running::Fleet(fleet, task), url.unwrap_or_default()))
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
                Running::Fleet(_, task) => task.taken().await,
                Running::Gateway(_) | Running::Other => pending().await,
            }
        };
        tokio::select! {
            part = self.base.ended.part() => part,
            () = taken => FleetTask::TAKEN,
        }
    }

    /// What runs ends well, as far as there is time. `balancers_hear`: whoever sends clients here is given time to send them
    /// elsewhere.
    pub(super) async fn stop(&self, balancers_hear: bool) {
        self.base.stopping.cancel();
        let drain_seconds = u64::from(self.base.config.health.drain_seconds);
        let grace = Duration::from_secs(if balancers_hear { drain_seconds } else { 0 });
        let learners = STOP.saturating_sub(AFTER_DRAIN);
        let closes_within = match &self.running {
            Running::Gateway(gateway) => {
                gateway.leave();
                tokio::time::sleep(grace).await;
                if tokio::time::timeout(learners, gateway.drain())
                    .await
                    .is_err()
                {
                    tracing::warn!("turns that did not end in time go on at another gateway");
                }
                AFTER_DRAIN
            }
            // Nobody is sent to a fleet.
            Running::Fleet(fleet, _) => {
                fleet.drain(learners).await;
                AFTER_DRAIN
            }
            Running::Other => {
                tokio::time::sleep(grace).await;
                STOP
            }
        };
        if tokio::time::timeout(closes_within, self.base.close())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
    }
}
