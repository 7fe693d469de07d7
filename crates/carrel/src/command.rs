//! The operator's commands, one file a noun.

mod chat;
mod class;
mod config;
mod crd;
mod doctor;
mod keys;
mod learner;
mod logs;
mod migrate;
mod model;
mod snapshot;
mod store;
mod usage;
mod vault;

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;

use crate::cli::Command;
use crate::exit::{Failure, Kind};
use crate::output;

/// Runs a command that is a client of a running server, or needs none.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Learner(command) => learner::run(command).await,
        Command::Class(command) => class::run(command).await,
        Command::Snapshot(command) => snapshot::run(command).await,
        Command::Vault(vault) => match vault.command {
            Some(command) => vault::run(command).await,
            None => unreachable!("a role has a runtime of its own"),
        },
        Command::Usage(flags) => usage::run(flags).await,
        Command::Model(command) => model::run(command).await,
        Command::Doctor(flags) => doctor::run(&flags).await,
        Command::Config(command) => config::run(command),
        Command::Keys(command) => keys::run(command),
        Command::Crd => crd::run(),
        Command::Migrate(at) => migrate::run(at).await,
        Command::Store(command) => store::run(command).await,
        Command::Completion { shell } => {
            let mut command = <crate::cli::Cli as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "carrel", &mut script);
            output::piece(&String::from_utf8(script)?)
        }
        Command::Version => output::line(concat!("carrel ", env!("CARGO_PKG_VERSION"))),
        Command::Up(_)
        | Command::Gateway(_)
        | Command::Router(_)
        | Command::Fleet(_)
        | Command::Controller(_) => {
            unreachable!("a server has a runtime of its own")
        }
    }
}

/// Asks before something is destroyed. Without a terminal there is nobody to ask.
fn confirm(yes: bool, what: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let message = format!("{what}: say --yes to do it without being asked");
        return Err(Failure::new(Kind::Usage, message).into());
    }
    write!(std::io::stderr(), "{what}. Go on? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("reading the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Kind::Interrupted, "nothing was done").into())
    }
}
