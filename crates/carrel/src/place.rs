//! Which server a command means: one that is named, the one on the data folder, or the release of Carrel in a cluster.

use std::path::{Path, PathBuf};

use crate::cli;
use crate::cluster::Cluster;
use crate::exit::{Failure, Kind};
use crate::paths;
use crate::run_file::RunFile;

/// A server that is meant.
pub(crate) enum Place {
    /// By its address.
    Named {
        server: String,
        token_file: Option<PathBuf>,
    },
    /// On this machine.
    Here(RunFile),
    /// By a kubeconfig.
    Cluster(Box<Cluster>),
}

impl Place {
    /// The cluster when a flag says so; else the server that is named, that on the data folder, that in the current context.
    pub(crate) async fn of(flags: &cli::Client) -> anyhow::Result<Self> {
        let place = &flags.place;
        if place.names_cluster() {
            if place.server.is_some() && !cli::is_plugin() {
                let message = "--server (CARREL_SERVER) names a server, and --kubeconfig, --context or --namespace a cluster: leave one of them out";
                return Err(Failure::new(Kind::Usage, message).into());
            }
            let cluster = Cluster::named(place).await?;
            return Ok(Self::Cluster(Box::new(cluster)));
        }
        if let Some(server) = &place.server {
            return Ok(Self::Named {
                server: server.clone(),
                token_file: place.token_file.clone(),
            });
        }
        let data_dir = paths::data_dir(place.data_dir.as_deref())?;
        if let Some(run) = RunFile::read(&data_dir)? {
            return Ok(Self::Here(run));
        }
        match Cluster::current(place).await? {
            Some(cluster) => Ok(Self::Cluster(Box::new(cluster))),
            None => Err(nowhere(&data_dir, flags).into()),
        }
    }
}

/// Nothing runs on the folder.
pub(crate) fn nowhere(data_dir: &Path, flags: &cli::Client) -> Failure {
    let message = format!(
        "no server runs on {}; start one with '{}', or name one by --server and --token-file, or a cluster by --context",
        data_dir.display(),
        flags.command("up")
    );
    Failure::new(Kind::Away, message)
}
