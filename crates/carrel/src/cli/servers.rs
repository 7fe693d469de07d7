//! Flags of servers, and of commands that work on the store itself.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::VaultCommand;
use crate::config::Isolation;

/// The data folder of a command that asks no server; a server that is named after it is refused.
#[derive(Debug, Clone, Args)]
pub(crate) struct Folder {
    /// Where everything is kept
    #[arg(long, env = "CARREL_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[arg(long, hide = true, value_parser = asks_no_server::<String>)]
    server: Option<String>,
    #[arg(long, hide = true, value_parser = asks_no_server::<PathBuf>)]
    token_file: Option<PathBuf>,
    #[arg(long, hide = true, value_parser = asks_no_server::<PathBuf>)]
    kubeconfig: Option<PathBuf>,
    #[arg(long, hide = true, value_parser = asks_no_server::<String>)]
    context: Option<String>,
    #[arg(short, long, hide = true, value_parser = asks_no_server::<String>)]
    namespace: Option<String>,
}

fn asks_no_server<T>(_: &str) -> Result<T, &'static str> {
    Err("this command asks no server")
}

/// Where a command finds what it works on.
#[derive(Debug, Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// A file or folder of YAML; else carrel.yaml in the data folder
    #[arg(long, env = "CARREL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of a role that runs as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct Role {
    #[command(flatten)]
    pub(crate) at: At,
    /// Its address; port 0 picks a free one. A fleet's is for gateways on other machines
    #[arg(long)]
    pub(crate) listen: Option<String>,
    /// Address of its health paths; port 0 picks a free one
    #[arg(long)]
    pub(crate) health_listen: Option<String>,
    /// What is printed when it is ready
    // A name of its own: below 'vault' stand commands with an '--output' of theirs.
    #[arg(
        id = "ready",
        short = 'o',
        long = "output",
        value_enum,
        default_value = "text"
    )]
    pub(crate) output: UpOutput,
}

/// Flags of `carrel vault`, and its commands.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Vault {
    #[command(subcommand)]
    pub(crate) command: Option<VaultCommand>,
    #[command(flatten)]
    pub(crate) role: Role,
}

/// Flags of `carrel up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Address of gateway, web chat and console; port 0 picks a free one
    #[arg(long)]
    pub(crate) listen: Option<String>,
    /// Address of the model router; port 0 picks a free one
    #[arg(long)]
    pub(crate) model_listen: Option<String>,
    /// How agents are kept apart
    #[arg(long, value_enum)]
    pub(crate) isolation: Option<Isolation>,
    /// A file or folder of YAML: carrel.yaml, LearnerClass and Learner documents
    #[arg(long, env = "CARREL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What is printed when everything is ready
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: UpOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpOutput {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Look whether what is stored adds up: turns, heads, money, usage, events; and what lies where snapshots are
    Check(At),
    /// Make a read model anew from the events
    Rebuild {
        /// Which
        #[arg(value_enum)]
        what: ReadModel,
        #[command(flatten)]
        at: At,
    },
}

/// What is folded from the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadModel {
    /// What was spent, by learner, class, model and hour
    Usage,
}
