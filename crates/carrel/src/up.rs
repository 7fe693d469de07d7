//! Servers: `carrel up` runs all roles in one process, on one data folder; `carrel gateway`, `router`, `vault`, `fleet` and
//! `controller` run one.

mod banner;
mod base;
mod beside;
mod certificates;
mod check;
mod controller;
mod data;
mod documents;
mod fleet_task;
mod keys;
mod kubernetes;
mod making;
mod models;
mod objects;
mod parts;
mod reload;
mod serve;
mod single;
mod store;
mod survey;
mod vault_client;
mod vault_port;

pub(crate) use beside::Beside;
pub(crate) use controller::run_controller;
pub(crate) use keys::create as new_keys;
pub(crate) use single::Role;
pub(crate) use store::migrate;
pub(crate) use survey::{Found, survey, survey_stores};

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::data::Data;
use crate::cli::{self, Up};
use crate::config::{self, Loaded};
use crate::exit::Kind;
use crate::output;
use crate::paths;

/// For everything to end once it was asked to: under the 30 s that are promised.
const STOP: Duration = Duration::from_secs(27);
/// What is left of it for learners that have to be ended, and for everything else after them.
const AFTER_DRAIN: Duration = Duration::from_secs(6);

/// Runs everything until a signal; the exit status.
pub(crate) fn run(flags: &Up) -> anyhow::Result<ExitCode> {
    let data_dir = paths::data_dir(flags.folder.data_dir.as_deref())?;
    // That a server runs here is said before anything else that is wrong.
    let mut data = Data::hold(&data_dir)?;
    let file = flags
        .config
        .clone()
        .unwrap_or_else(|| data_dir.join("carrel.yaml"));
    // The file that is made where none is named changes nothing.
    let there = Some(file.as_path()).filter(|file| flags.config.is_some() || file.exists());
    let loaded = config::load(there, std::env::vars())?;
    let runs = until_stopped(flags, &mut data, &file, loaded.clone());
    blocking(&loaded, runs)
}

/// Runs one role until a signal; the exit status.
pub(crate) fn run_role(role: Role, flags: &cli::Role) -> anyhow::Result<ExitCode> {
    let dir = paths::data_dir(flags.at.folder.data_dir.as_deref())?;
    carrel_vault::durable::make_folder(&dir, 0o700)
        .with_context(|| format!("making the data folder {}", dir.display()))?;
    let file = paths::config_file(flags.at.config.clone(), &dir);
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    let runs = async {
        let mut signals = Signals::listen()?;
        let started = single::start(role, flags, &dir, file.as_deref(), loaded.clone());
        let single = tokio::select! {
            single = Box::pin(started) => single?,
            code = signals.any() => return Ok(code),
        };
        let ended = tokio::select! {
            _ = signals.any() => None,
            part = single.failed() => Some(part),
        };
        let stopped = tokio::select! {
            () = single.stop(ended.is_none()) => true,
            _ = signals.any() => false,
        };
        status(ended, stopped)
    };
    blocking(&loaded, runs)
}

/// Starts the log, and runs a server.
fn blocking(
    loaded: &Loaded,
    server: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let settings = &loaded.config.telemetry;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    carrel_telemetry::logs::start(settings.log_format, &settings.log_filter, colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(server);
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Who asks a server to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
        })
    }

    /// Either of them; the status of a start that it ends.
    async fn any(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.interrupt.recv() => Kind::Interrupted.into(),
            _ = self.terminate.recv() => ExitCode::SUCCESS,
        }
    }
}

async fn until_stopped(
    flags: &Up,
    data: &mut Data,
    file: &Path,
    loaded: Loaded,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let parts = tokio::select! {
        parts = Box::pin(parts::start(flags, data, file, loaded)) => parts?,
        code = signals.any() => return Ok(code),
    };
    parts.run.write(&data.dir)?;
    banner::print(flags.output, &parts)?;
    let ended = tokio::select! {
        _ = signals.any() => None,
        part = parts.failed() => Some(part),
    };
    output::talk("carrel: learners fall asleep; once more to end at once");
    let stopped = tokio::select! {
        () = parts.stop(STOP) => true,
        _ = signals.any() => false,
    };
    crate::run_file::RunFile::remove(&data.dir);
    status(ended, stopped)
}

/// The status of a server's end: a part that ended by itself, or whether it ended well when it was asked to.
fn status(ended: Option<&'static str>, stopped: bool) -> anyhow::Result<ExitCode> {
    match (ended, stopped) {
        (Some(part), _) => anyhow::bail!("{part} ended although it must not"),
        (None, true) => Ok(ExitCode::SUCCESS),
        (None, false) => Ok(Kind::Interrupted.into()),
    }
}
