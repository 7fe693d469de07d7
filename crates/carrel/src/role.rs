//! Roles that Carrel starts by itself: hidden from the operator's help, chosen by the first word. Some of them fork or
//! must stay small, so they run before any thread, runtime or TLS library is started.

use std::path::PathBuf;
use std::process::ExitCode;

use carrel_sidecar::{ShimOptions, SidecarOptions};
use carrel_telemetry::LogFormat;
use clap::Parser;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output;

#[derive(Debug, Parser)]
#[command(name = "carrel sidecar")]
struct Sidecar {
    #[command(flatten)]
    options: SidecarOptions,
}

#[derive(Debug, Parser)]
#[command(name = "carrel shim")]
struct Shim {
    #[command(flatten)]
    options: ShimOptions,
}

/// What the built-in agent takes from its environment (its contract with the sidecar).
#[derive(Debug, Parser)]
#[command(
    name = "carrel agent",
    about = "The built-in tutor, as a learner's agent"
)]
struct Agent {
    /// The workspace
    #[arg(long, env = "CARREL_WORKSPACE")]
    workspace: PathBuf,
    /// The port to answer on
    #[arg(long, env = "CARREL_AGENT_PORT")]
    port: u16,
    /// The model API
    #[arg(long, env = "ANTHROPIC_BASE_URL")]
    model_url: String,
    /// The key for it
    #[arg(long, env = "ANTHROPIC_AUTH_TOKEN", hide_env_values = true)]
    model_token: String,
}

/// Runs the role that the first word names; `None` when it names none.
pub(crate) fn run_if_named() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let role = words.next()?;
    let code = match role.to_str()? {
        "container" => carrel_fleet_local::container::container_main(words),
        "snapshot-worker" => carrel_sidecar::snapshot::worker_main(),
        "sidecar" => {
            log();
            carrel_sidecar::sidecar_main(parse::<Sidecar>().options)
        }
        "shim" => {
            log();
            carrel_sidecar::shim_main(parse::<Shim>().options)
        }
        "agent" => agent(parse()),
        "rest" => rest(),
        _ => return None,
    };
    Some(code)
}

/// Does nothing until it is told to end: what runs of an image on a node that shall have it.
fn rest() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut told = signal(SignalKind::terminate())?;
            told.recv().await;
            Ok(())
        })
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(&format!("carrel rest: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn parse<T: Parser>() -> T {
    T::parse_from(std::env::args_os().skip(1))
}

/// Children log to the stderr that they were given, errors and warnings only.
fn log() {
    // Logging twice cannot happen: nothing ran before.
    let _: Result<(), _> = carrel_telemetry::logs::start(LogFormat::Text, "warn", false);
}

fn agent(flags: Agent) -> ExitCode {
    let options = carrel_agent::Options {
        workspace: flags.workspace,
        port: flags.port,
        model_url: flags.model_url,
        model_token: SecretString::from(flags.model_token),
        history_tokens: carrel_agent::HISTORY_TOKENS,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let _: Result<(), _> = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(runtime.block_on(carrel_agent::run(options, CancellationToken::new()))?)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(&format!("carrel agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
