//! Starts every role in this process, in the order in which they need each other, and stops them in the other.

use std::path::Path;
use std::time::Duration;

use carrel_fleet_local::LocalFleet;
use carrel_gateway::Handle as Gateway;
use carrel_protocol::fleet::Fleet as _;
use carrel_protocol::token::Signer;
use carrel_telemetry::{Snapshots, Wakes};

use super::check::check;
use super::data::Data;
use super::ground::{Ground, Measured};
use super::making::Making;
use super::reload::{self, Watch};
use crate::cli::Up;
use crate::config::Loaded;
use crate::exit::{Failure, Kind};
use crate::run_file::RunFile;

/// What is left of the stop's time for learners that have to be ended, and for everything else after them.
const AFTER_DRAIN: Duration = Duration::from_secs(6);
/// What is left of it for everything but the learners.
const AFTER_LEARNERS: Duration = Duration::from_secs(3);

/// Everything that runs.
pub(super) struct Parts {
    pub(super) run: RunFile,
    pub(super) chat_link: String,
    pub(super) console_link: String,
    pub(super) notices: Vec<String>,
    gateway: Gateway,
    fleet: LocalFleet,
    ground: Ground,
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
    let making = Making::begin(&data.dir);
    data.make()?;
    let ground = Ground::open(data, &loaded).await?;
    let config = &ground.config;
    let (gateway_listener, gateway_bound) = checked.gateway;
    let (router_listener, router_bound) = checked.router;
    let gateway_url = format!("http://{gateway_bound}");
    let public_url = match config.gateway.public_url.trim_end_matches('/') {
        "" => gateway_url.clone(),
        url => url.to_owned(),
    };
    let model_url = format!("http://{router_bound}");
    let mut registry = carrel_telemetry::registry(env!("CARGO_PKG_VERSION"));
    let (wakes, snapshots) = (
        Wakes::register(&mut registry),
        Snapshots::register(&mut registry),
    );

    let vault = ground.start_vault(&snapshots).await?;
    let models = checked.models.with_admin(&ground.admin_token);
    let router = ground
        .start_router(router_listener, models.options, &mut registry)
        .await?;
    let watch = Watch::new(file.to_path_buf(), loaded, ground.admin_token.clone());
    ground
        .tracker
        .spawn(reload::run(watch, router, ground.cancel.clone()));
    let gateway_signer = Signer::from_pem(&Signer::generate_pem()?)?;
    let isolation = flags.isolation.unwrap_or(config.fleet.isolation);
    let metrics = carrel_fleet_local::Metrics::register(&mut registry, wakes.clone());
    let fleet = ground
        .start_fleet(&gateway_signer, &model_url, isolation, metrics)
        .await?;
    let measured = Measured {
        gateway: carrel_gateway::Metrics::register(&mut registry, wakes, snapshots),
        registry,
    };
    let gateway = ground.start_gateway(
        gateway_listener,
        gateway_signer,
        &fleet,
        vault,
        &public_url,
        measured,
    );

    let said = |problem: carrel_protocol::Problem| Failure::new(Kind::Failed, problem.to_string());
    let me = ground.me().await?;
    let chat_link = gateway.chat_link(me).await.map_err(said)?.url;
    let console_link = gateway.console_link().await.map_err(said)?.url;
    let isolation = fleet.isolation();
    making.done();
    Ok(Parts {
        run: RunFile {
            // Commands on this machine carry the admin token: it goes nowhere else.
            gateway_url,
            model_url,
            data_dir: data.dir.display().to_string(),
            admin_token_file: ground.admin_token_file.display().to_string(),
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
        ground,
    })
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
        self.ground.cancel.cancel();
        self.ground.tracker.close();
        let closed = async {
            self.ground.tracker.wait().await;
            // Nobody is left who would write.
            self.ground.store.close().await;
        };
        if tokio::time::timeout(AFTER_LEARNERS, closed).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.ground.run_dir) {
            tracing::warn!(dir = %self.ground.run_dir.display(), %error, "the run folder stays");
        }
    }

    /// Waits until a part ends that must not: its name.
    pub(super) async fn failed(&self) -> &'static str {
        self.ground.ended.cancelled().await;
        "the model router"
    }
}
