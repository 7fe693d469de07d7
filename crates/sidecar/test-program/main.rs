//! The subcommands that make a pod, as one executable, with an agent and a snapshot worker that tests can steer.

mod agent;
mod worker;

use std::process::ExitCode;

use carrel_sidecar::{ShimOptions, SidecarOptions};
use clap::Parser;

#[derive(Parser)]
enum Program {
    Sidecar(Box<SidecarOptions>),
    Shim(ShimOptions),
    /// Copies folders instead of making restic snapshots.
    SnapshotWorker,
    /// An agent of the adapter `Http` that does what its message says.
    Agent,
}

fn main() -> ExitCode {
    match Program::parse() {
        Program::Sidecar(options) => carrel_sidecar::sidecar_main(*options),
        Program::Shim(options) => carrel_sidecar::shim_main(options),
        Program::SnapshotWorker => worker::run(),
        Program::Agent => agent::run(),
    }
}
