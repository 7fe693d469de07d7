//! Starts every role in this process, in the order in which they need each other, and stops them in the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carrel_core::LearnerId;
use carrel_core::class::DEFAULT_CLASS;
use carrel_fleet_local::LocalFleet;
use carrel_gateway::Handle as Gateway;
use carrel_protocol::Endpoint;
use carrel_protocol::token::{Signer, Verifier};
use carrel_telemetry::{Readiness, Snapshots, Wakes};

use super::base::{Base, FleetParts, GatewayParts, now};
use super::certificates::Certificates;
use super::check::check;
use super::data::Data;
use super::fleet_task::FleetTask;
use super::making::Making;
use super::reload::{self, Watch};
use super::vault_port::LocalVault;
use super::{AFTER_DRAIN, documents, keys};
use crate::cli::Up;
use crate::config::Loaded;
use crate::exit::{Failure, Kind};
use crate::paths;
use crate::run_file::RunFile;

/// What is left of it for everything but the learners.
const AFTER_LEARNERS: Duration = Duration::from_secs(3);
/// The learner whom the printed link signs in.
const ME: &str = "me";

/// Everything that runs.
pub(super) struct Parts {
    pub(super) run: RunFile,
    pub(super) chat_link: String,
    pub(super) console_link: String,
    pub(super) notices: Vec<String>,
    gateway: Gateway,
    fleet: LocalFleet,
    base: Base,
    run_dir: std::path::PathBuf,
    task: FleetTask,
}

/// Checks what can be checked, opens what the roles stand on, then starts them in the order in which they need each other.
/// `file` is what `loaded` was read from.
pub(super) async fn start(
    flags: &Up,
    data: &mut Data,
    file: &Path,
    loaded: Loaded,
) -> anyhow::Result<Parts> {
    let checked = check(flags, &data.dir, &loaded).await?;
    let mut making = Making::begin(&data.dir);
    data.make()?;
    making.hold(&data.dir);
    let run_dir = paths::make_run_dir(&data.dir).context("preparing the run folder")?;
    let base = Base::open(&data.dir, &loaded, Certificates::default()).await?;
    let config = &base.config;
    let task = FleetTask::take(base.shared()).await?;
    let admin_token_file = data.dir.join(&config.keys.admin_token_file);
    let admin_token = keys::admin_token(&admin_token_file)?;
    let signer = keys::signer(&data.dir.join(&config.keys.signing_key_file))?;
    documents::apply(&base.shared(), &loaded, now()).await?;
    let (gateway_listener, gateway_bound) = checked.gateway;
    let (router_listener, router_bound) = checked.router;
    let gateway_url = format!("http://{gateway_bound}");
    let model_url = format!("http://{router_bound}");
    let mut registry = carrel_telemetry::registry(env!("CARGO_PKG_VERSION"));
    let (wakes, snapshots) = (
        Wakes::register(&mut registry),
        Snapshots::register(&mut registry),
    );

    let pods = Verifier::new(std::slice::from_ref(signer.public_key()))?;
    let gateway_signer = Signer::from_pem(&Signer::generate_pem()?)?;
    // Nobody asks it for operators but the gateway beside it, by no token.
    let nobody = Verifier::new(&[])?;
    let vault = base.start_vault(pods.clone(), nobody, &snapshots).await?;
    let vault_socket = run_dir.join("vault.sock");
    base.serve_unix(&vault_socket, carrel_vault::router(vault.clone()))?;
    let models = checked.models.with_admin(&admin_token);
    let router = base
        .start_router(
            router_listener,
            checked.egress,
            models.options,
            pods,
            &mut registry,
        )
        .await?;
    let watch = Watch::new(file.to_path_buf(), loaded, admin_token.clone());
    base.tracker
        .spawn(reload::run(watch, router, base.cancel.clone()));
    let fleet = base.start_fleet(FleetParts {
        signer,
        callers: vec![gateway_signer.public_key().clone()],
        executable: paths::shared_executable(&run_dir).context("sharing our executable")?,
        run_dir: run_dir.clone(),
        vault: Endpoint::Unix(vault_socket),
        router: Endpoint::Url(model_url.clone()),
        door: None,
        isolation: flags.isolation.unwrap_or(config.fleet.isolation),
        metrics: carrel_fleet_local::Metrics::register(&mut registry, wakes.clone()),
    });
    let fleet = fleet.await?;
    let parts = GatewayParts {
        signer: gateway_signer,
        fleet: Arc::new(fleet.clone()),
        vault: Arc::new(LocalVault(vault)),
        public_url: base.public_url(&gateway_url),
        relay_url: gateway_url.clone(),
        admin_token,
        metrics: carrel_gateway::Metrics::register(&mut registry, wakes, snapshots),
        registry,
        readiness: Readiness::default(),
    };
    let gateway = base.start_gateway(gateway_listener, parts);

    let said = |problem: carrel_protocol::Problem| Failure::new(Kind::Failed, problem.to_string());
    let me = me(&base).await?;
    let chat_link = gateway.chat_link(me).await.map_err(said)?.url;
    let console_link = gateway.console_link().await.map_err(said)?.url;
    let isolation = fleet.report();
    making.done();
    Ok(Parts {
        run: RunFile {
            // Commands on this machine carry the admin token: it goes nowhere else.
            gateway_url,
            model_url,
            data_dir: data.dir.display().to_string(),
            admin_token_file: admin_token_file.display().to_string(),
            isolation: isolation.isolation,
            limits_missing: isolation.limits_missing,
            providers: models.names,
            pid: std::process::id(),
        },
        chat_link,
        console_link,
        notices: [models.notice, isolation.warning]
            .into_iter()
            .filter(|n| !n.is_empty())
            .collect(),
        gateway,
        fleet,
        base,
        run_dir,
        task,
    })
}

/// The learner of the printed link, made when it is not there.
async fn me(base: &Base) -> anyhow::Result<LearnerId> {
    let (id, store): (LearnerId, _) = (ME.parse()?, base.shared());
    if store.learner(&id, now()).await?.is_none() {
        documents::create(&store, &id, &DEFAULT_CLASS.parse()?, now()).await?;
    }
    Ok(id)
}

impl Parts {
    /// Intake closes, running turns finish or are parked, awake learners take their snapshots, everything ends.
    pub(super) async fn stop(&self, within: Duration) {
        let learners = within.saturating_sub(AFTER_DRAIN);
        let turns = async {
            let turns = tokio::time::timeout(learners, self.gateway.drain());
            if turns.await.is_err() {
                tracing::warn!("turns that did not end in time run again at the next start");
            }
        };
        tokio::join!(turns, self.fleet.drain(learners));
        let closed = tokio::time::timeout(AFTER_LEARNERS, self.base.close());
        if closed.await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.run_dir) {
            tracing::warn!(dir = %self.run_dir.display(), %error, "the run folder stays");
        }
    }

    /// Waits until a part ends that must not: its name.
    pub(super) async fn failed(&self) -> &'static str {
        tokio::select! {
            part = self.base.ended.part() => part,
            () = self.task.taken() => FleetTask::TAKEN,
        }
    }
}
