//! `carrel up`: all roles in one process, on one data folder.

mod banner;
mod check;
mod data;
mod documents;
mod ground;
mod making;
mod models;
mod objects;
mod parts;
mod reload;
mod serve;
mod vault_port;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::data::Data;
use crate::cli::Up;
use crate::config;
use crate::exit::Kind;
use crate::output;
use crate::paths;

/// For everything to end once it was asked to: under the 30 s that are promised.
const STOP: Duration = Duration::from_secs(27);

/// Runs until a signal; the exit status.
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
    let settings = loaded.config.telemetry.clone();
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    carrel_telemetry::logs::start(settings.log_format, &settings.log_filter, colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(until_stopped(flags, &mut data, &file, loaded));
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn until_stopped(
    flags: &Up,
    data: &mut Data,
    file: &Path,
    loaded: config::Loaded,
) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let parts = tokio::select! {
        parts = Box::pin(parts::start(flags, data, file, loaded)) => parts?,
        _ = interrupt.recv() => return Ok(Kind::Interrupted.into()),
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    parts.run.write(&data.dir)?;
    banner::print(flags.output, &parts)?;
    let ended = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        part = parts.failed() => Some(part),
    };
    output::talk("carrel: learners fall asleep; once more to end at once");
    let stopped = tokio::select! {
        () = parts.stop(STOP) => true,
        _ = interrupt.recv() => false,
    };
    crate::run_file::RunFile::remove(&data.dir);
    match (ended, stopped) {
        (Some(part), _) => anyhow::bail!("{part} ended although it must not"),
        (None, true) => Ok(ExitCode::SUCCESS),
        (None, false) => Ok(Kind::Interrupted.into()),
    }
}
