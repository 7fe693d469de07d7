//! The `carrel` executable: the operator's commands, `carrel up`, and the roles that it starts.

mod cli;
mod client;
mod cluster;
mod command;
mod config;
mod exit;
mod output;
mod paths;
mod place;
mod role;
mod run_file;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use up::Role;

/// Gives memory back after lists of thousands, and takes less processor time than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = role::run_if_named() {
        return code;
    }
    // The TLS library's choice of cryptography is made once, before any connection.
    let _: Result<(), _> = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli::Cli::parse().command {
        cli::Command::Up(flags) => up::run(&flags),
        cli::Command::Gateway(flags) => up::run_role(Role::Gateway, &flags),
        cli::Command::Router(flags) => up::run_role(Role::Router, &flags),
        cli::Command::Fleet(flags) => up::run_role(Role::Fleet, &flags),
        cli::Command::Controller(flags) => up::run_controller(&flags),
        cli::Command::Vault(cli::Vault {
            command: None,
            role,
        }) => up::run_role(Role::Vault, &role),
        command => run_client(command),
    };
    result.unwrap_or_else(|error| {
        output::talk(&format!("carrel: {error:#}"));
        exit::kind_of(&error).into()
    })
}

fn run_client(command: cli::Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(command::run(command))
        .map(|()| ExitCode::SUCCESS)
}
