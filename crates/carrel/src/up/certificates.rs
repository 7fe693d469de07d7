//! Certificates by which roles that are processes of their own know each other: read at the start, and again whenever their
//! files change, however they are replaced. What cannot be used changes nothing, and the log says why.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrel_wire::{Identity, Trust};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::base::now;
use super::reload::{Stamp, stamp};
use crate::config::Tls;
use crate::exit::{Failure, Kind};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The most bytes of the authorities.
const MOST_AUTHORITIES: usize = 64 << 10;

/// What a role shows, and whom it believes. Cheap to clone; clones change together.
#[derive(Debug, Clone, Default)]
pub(super) struct Certificates {
    pub(super) identity: Option<Identity>,
    pub(super) trust: Trust,
}

/// The files, as they were last seen.
struct Files {
    chain: PathBuf,
    key: PathBuf,
    authorities: Option<PathBuf>,
    read: [Stamp; 3],
    seen: [Stamp; 3],
}

impl Certificates {
    /// Reads what is named.
    ///
    /// # Errors
    /// When a file cannot be read or used; it is named, with what to do.
    pub(super) fn read(dir: &Path, tls: &Tls) -> anyhow::Result<Self> {
        let files = Files::of(dir, tls);
        let identity = if tls.cert_file.is_empty() {
            None
        } else {
            let (chain, key) = files.identity()?;
            let identity = Identity::new(&chain, &key, now());
            Some(identity.map_err(|error| files.unusable(&error))?)
        };
        let authorities = files.authorities()?;
        let trust = authorities.map_or_else(|| Ok(Trust::default()), |pem| Trust::new(&pem));
        Ok(Self {
            identity,
            trust: trust.map_err(|error| files.untrusted(&error))?,
        })
    }

    /// Takes changed files over until cancelled.
    pub(super) async fn follow(self, dir: PathBuf, tls: Tls, cancel: CancellationToken) {
        if tls == Tls::default() {
            return;
        }
        let mut files = Files::of(&dir, &tls);
        let mut due = interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while cancel.run_until_cancelled(due.tick()).await.is_some() {
            if !files.have_changed() {
                continue;
            }
            match self.take(&files) {
                Ok(()) => tracing::info!("the changed certificates are in force"),
                Err(error) => {
                    let reason = format!("{error:#}");
                    tracing::warn!(
                        reason,
                        "changed certificates cannot be used: those of before stay in force"
                    );
                }
            }
        }
    }

    /// Each of the two for itself: a bad one keeps no good one out.
    fn take(&self, files: &Files) -> anyhow::Result<()> {
        let shown = self.identity.as_ref().map_or(Ok(()), |identity| {
            let (chain, key) = files.identity()?;
            let replaced = identity.replace(&chain, &key, now());
            replaced.map_err(|error| files.unusable(&error))
        });
        let authorities = files.authorities()?;
        let believed = authorities.map_or(Ok(()), |pem| self.trust.replace(&pem));
        believed.map_err(|error| files.untrusted(&error))?;
        shown
    }
}

impl Files {
    fn of(dir: &Path, tls: &Tls) -> Self {
        let named = |file: &str| Some(dir.join(file)).filter(|_| !file.is_empty());
        let mut files = Self {
            chain: dir.join(&tls.cert_file),
            key: dir.join(&tls.key_file),
            authorities: named(&tls.ca_file),
            read: [None; 3],
            seen: [None; 3],
        };
        files.read = files.stamps();
        files.seen = files.read;
        files
    }

    fn stamps(&self) -> [Stamp; 3] {
        let authorities = self.authorities.as_deref();
        [
            stamp(&self.chain),
            stamp(&self.key),
            authorities.and_then(stamp),
        ]
    }

    /// Whether they are others, and the same for two looks: what is still being written is left alone.
    fn have_changed(&mut self) -> bool {
        let now = self.stamps();
        let is_settled = std::mem::replace(&mut self.seen, now) == now;
        is_settled && std::mem::replace(&mut self.read, now) != now
    }

    fn identity(&self) -> anyhow::Result<(String, String)> {
        let chain = text("tls.certFile", &self.chain)?;
        let key = text("tls.keyFile", &self.key)?;
        // A group may be that of all who serve with it.
        if std::fs::metadata(&self.key)?.permissions().mode() & 0o007 != 0 {
            let file = self.key.display();
            let message =
                format!("tls.keyFile: {file} may be read by everybody: run 'chmod 600 {file}'");
            return Err(Failure::new(Kind::NotAllowed, message).into());
        }
        Ok((chain, key))
    }

    /// `None`: the machine's.
    fn authorities(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.authorities else {
            return Ok(None);
        };
        let text = text("tls.caFile", file)?;
        if text.len() > MOST_AUTHORITIES {
            let message = format!(
                "tls.caFile: {} is longer than 64 KiB, and each pod is told it: name the file of your own authority alone",
                file.display()
            );
            return Err(Failure::new(Kind::Usage, message).into());
        }
        Ok(Some(text))
    }

    fn unusable(&self, error: &carrel_wire::Error) -> anyhow::Error {
        let (key, file) = if error.is_of_the_key() {
            ("tls.keyFile", &self.key)
        } else {
            ("tls.certFile", &self.chain)
        };
        let remedy = "have certificate and key made anew, together, or name others";
        refused(key, file, error, remedy)
    }

    fn untrusted(&self, error: &carrel_wire::Error) -> anyhow::Error {
        let file = self.authorities.clone().unwrap_or_default();
        let remedy = "name the file of the authority that signed the roles' certificates, or leave it away for the machine's";
        refused("tls.caFile", &file, error, remedy)
    }
}

fn refused(key: &str, file: &Path, error: &carrel_wire::Error, remedy: &str) -> anyhow::Error {
    let message = format!("{key}: {}: {error}: {remedy}", file.display());
    Failure::new(Kind::Usage, message).into()
}

fn text(key: &str, file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        let message = format!(
            "{key}: {} cannot be read ({error}): put it there, or name another",
            file.display()
        );
        Failure::new(Kind::Usage, message).into()
    })
}

#[cfg(test)]
mod tests;
