//! Takes a changed configuration over while the server runs: providers, routes, prices, and who may call the router. Read and
//! checked whole; what is invalid changes nothing.
//!
//! Looks at the files' inodes and times instead of waiting for events, so that it does not matter how a file is replaced:
//! written in place, renamed over, or behind a symbolic link that is swapped. A look is a few `stat`s, and writes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::models;
use crate::config::{self, Loaded};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None`: it is not there.
pub(super) type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;
type Stamps = BTreeMap<PathBuf, Stamp>;

/// The files of a configuration, as they were last seen.
pub(super) struct Watch {
    source: PathBuf,
    admin_token: String,
    started_with: Loaded,
    /// Files that the newest readable configuration names: prices and keys.
    named: Vec<PathBuf>,
    /// As it was when it was last read.
    read: Stamps,
    seen: Stamps,
}

/// What became of a change.
pub(super) enum Change {
    /// It is valid; and what of it waits for the next start.
    Valid(Box<carrel_router::Options>, Vec<String>),
    /// It is not; why, without values.
    Invalid(String),
}

impl Watch {
    /// Watches what `loaded` was read from.
    pub(super) fn new(source: PathBuf, loaded: Loaded, admin_token: String) -> Self {
        let mut watch = Self {
            named: models::files(&loaded.config),
            started_with: loaded,
            source,
            admin_token,
            read: Stamps::new(),
            seen: Stamps::new(),
        };
        watch.read = watch.stamps();
        watch.seen = watch.read.clone();
        watch
    }

    /// One look; gives a change once the files have been the same for two looks: what is still being written is left alone.
    pub(super) fn look(&mut self) -> Option<Change> {
        let now = self.stamps();
        let is_settled = now == self.seen;
        self.seen.clone_from(&now);
        if !is_settled || now == self.read {
            return None;
        }
        self.read = now;
        let change = self.take();
        // Other files may be named now; a change of theirs counts from here.
        self.read = self.stamps();
        self.seen.clone_from(&self.read);
        Some(change.unwrap_or_else(|error| Change::Invalid(shown(&error))))
    }

    fn take(&mut self) -> anyhow::Result<Change> {
        let loaded = config::load(Some(&self.source), std::env::vars())?;
        self.named = models::files(&loaded.config);
        let models = models::options(&loaded.config)?.with_admin(&self.admin_token);
        let waiting = config::waiting(&self.started_with, &loaded);
        Ok(Change::Valid(Box::new(models.options), waiting))
    }

    fn stamps(&self) -> Stamps {
        // A folder that cannot be read is a change too: reading it says why.
        let files = config::files(Some(&self.source)).unwrap_or_default();
        files
            .iter()
            .chain(&self.named)
            .map(|file| (file.clone(), stamp(file)))
            .collect()
    }
}

pub(super) fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        (meta.mtime(), meta.mtime_nsec()),
        (meta.ctime(), meta.ctime_nsec()),
    ))
}

/// An error for the log: its first lines, without the values that it quotes, which may be keys written in the wrong place.
fn shown(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    let line = whole.lines().next().unwrap_or_default();
    let parts = line.split('"').enumerate();
    let blanked = parts.map(|(at, part)| if at % 2 == 1 { "…" } else { part });
    blanked.collect::<Vec<_>>().join("\"")
}

/// Looks until cancelled, and hands what is valid to the router.
pub(super) async fn run(
    mut watch: Watch,
    router: carrel_router::Service,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let file = watch.source.display().to_string();
        match watch.look() {
            None => {}
            Some(Change::Valid(options, waiting)) => {
                router.replace(*options);
                tracing::info!(file, "the changed configuration is in force");
                if !waiting.is_empty() {
                    let waiting = waiting.join(", ");
                    tracing::warn!(file, waiting, "what also changed waits for the next start");
                }
            }
            Some(Change::Invalid(reason)) => {
                tracing::warn!(
                    file,
                    reason,
                    "the changed configuration is invalid: the last good one stays in force"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
