//! `carrel doctor`: looks for what is wrong, a line a check; every failure says the next command.

mod after;
mod before;
mod definitions;
mod here;
mod parts;
mod processes;
mod rights;
mod school;

use crate::cli;
use crate::cluster::Cluster;
use crate::config::{self, Config};
use crate::exit::{Failure, Kind};
use crate::output;
use crate::paths;
use crate::run_file::RunFile;
use crate::up::Found;

pub(super) async fn run(flags: &cli::Doctor) -> anyhow::Result<()> {
    let client = &flags.client;
    let mut report = Report {
        flags: client,
        bad: 0,
    };
    if flags.pre {
        let cluster = Cluster::named(&client.place).await?;
        before::look(&cluster, flags, &mut report).await?;
    } else {
        match cluster_of(client).await? {
            Some(cluster) => after::look(&cluster, &mut report).await?,
            None => here::look(client, &mut report).await?,
        }
    }
    match report.bad {
        0 => Ok(()),
        bad => Err(Failure::new(Kind::Failed, format!("{bad} of the checks failed")).into()),
    }
}

/// The cluster that is meant, when nothing says that a server on this machine or at an address is.
async fn cluster_of(flags: &cli::Client) -> anyhow::Result<Option<Cluster>> {
    let place = &flags.place;
    if place.names_cluster() {
        return Cluster::named(place).await.map(Some);
    }
    let data_dir = paths::data_dir(place.data_dir.as_deref())?;
    let is_here = place.server.is_some()
        || RunFile::read(&data_dir)?.is_some()
        || data_dir.join("carrel.yaml").exists()
        || load(&data_dir).is_ok_and(|loaded| names_database(&loaded.config));
    if is_here {
        return Ok(None);
    }
    Cluster::current(place).await
}

/// Whether somebody has said where the store is.
fn names_database(config: &Config) -> bool {
    config.store.url != Config::default().store.url
}

/// What the next start would read in the data folder.
fn load(dir: &std::path::Path) -> Result<config::Loaded, config::Error> {
    let file = dir.join("carrel.yaml");
    let there = Some(file.as_path()).filter(|file| file.exists());
    config::load(there, std::env::vars())
}

/// What is printed.
struct Report<'a> {
    flags: &'a cli::Client,
    bad: usize,
}

impl Report<'_> {
    fn say(&mut self, name: &str, found: Found) -> anyhow::Result<()> {
        match found {
            Found::Good(what) => output::line(&format!("ok    {name}: {what}")),
            Found::Notice(what) => output::line(&format!("note  {name}: {what}")),
            Found::Bad { what, next } => {
                self.bad += 1;
                let next = next
                    .strip_prefix("carrel ")
                    .map_or(next.clone(), |words| self.flags.command(words));
                output::line(&format!("FAIL  {name}: {what}\n      next: {next}"))
            }
        }
    }
}

fn bad(what: impl std::fmt::Display, next: impl Into<String>) -> Found {
    Found::Bad {
        what: what.to_string(),
        next: next.into(),
    }
}
