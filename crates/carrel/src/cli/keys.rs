//! Flags of `carrel keys`.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make the keys of a new installation, all that its roles know each other by
    ///
    /// signing.key and signing.pub, gateway.key and gateway.pub, kek, admin.token: as files, or as a Secret for Kubernetes on
    /// standard output. Keep a copy of kek where the database's backups are not: without it no snapshot can be read.
    #[command(group = ArgGroup::new("place").required(true))]
    Create {
        /// A folder that is made for them; one that holds anything is refused
        #[arg(long, group = "place", value_name = "DIR")]
        out: Option<PathBuf>,
        /// Print a Secret of this name instead, for 'kubectl create -f -'
        #[arg(long, group = "place", value_name = "NAME")]
        secret: Option<String>,
        /// The Secret's namespace; else the one that kubectl is told
        #[arg(long, conflicts_with = "out")]
        namespace: Option<String>,
    },
}
