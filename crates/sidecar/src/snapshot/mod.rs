//! Snapshots of the workspace: taking one and bringing one back.
//!
//! The work is done in a short-lived child ([`worker_main`], the hidden subcommand `snapshot-worker`): its memory is given
//! back at once, and a panic over damaged data ends the child and nothing else. Request and answer are JSON over the
//! child's stdin and stdout; key and token are never arguments or environment. [`Snapshots`] is the sidecar's handle.
//!
//! The workspace is hostile: links are not followed, special files are left out, sizes are bounded. Whatever fails is an
//! [`Error`]; the caller then starts no agent and commits nothing.

mod backup;
mod error;
mod request;
mod rest;
mod restore;
mod source;
mod uploads;
mod verify;
mod walk;
mod worker;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use carrel_core::SnapshotId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

pub use error::{Error, ErrorKind, LimitKind};
pub use request::{BackupOutcome, Limits, Repository, RestoreOutcome};
pub use worker::worker_main;

use request::{Answer, Outcome, Request, Task};

/// The folder in a workspace into which a restore goes before it is whole. Never part of a snapshot.
pub const RESTORE_FOLDER: &str = ".carrel-restore";

/// How many objects `rustic_core` reads at once: it reads by the threads of `rayon`, which would be one a processor, and they
/// wait for the vault.
const READS: &str = "16";

/// The most that a worker may answer.
const ANSWER_BYTES: u64 = 64 * 1024;

/// How the sidecar takes and restores snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// The executable that has the subcommand: usually `/proc/self/exe`.
    pub program: PathBuf,
    /// The arguments that make it a snapshot worker: usually `["snapshot-worker"]`.
    pub arguments: Vec<String>,
    /// Where the snapshots are.
    pub repository: Repository,
    /// What a snapshot may hold, from the learner's class.
    pub limits: Limits,
    /// How long a backup or a restore may take.
    pub timeout: Duration,
}

impl Snapshots {
    /// Takes a snapshot of `workspace`, whose writers are frozen. `parent` is the head's snapshot: what did not change
    /// since then is not read again.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::Unreadable`] are the workspace's fault; the others see [`Error::kind`].
    ///
    /// # Cancel safety
    /// Dropping it kills the worker; the repository stays valid.
    pub async fn backup(
        &self,
        workspace: &Path,
        parent: Option<&SnapshotId>,
    ) -> Result<BackupOutcome, Error> {
        let task = Task::Backup {
            workspace: workspace.to_owned(),
            parent: parent.cloned(),
            limits: self.limits.clone(),
        };
        match self.run(task).await? {
            Outcome::Backup(outcome) => Ok(outcome),
            Outcome::Restore(_) => Err(Error::Crashed),
        }
    }

    /// Brings a snapshot into `workspace`, which must be empty: first into [`RESTORE_FOLDER`] in it, then, verified, up.
    ///
    /// # Errors
    /// [`Error::Damaged`] means that the vault should be asked to prove it. After any error the workspace is unusable.
    ///
    /// # Cancel safety
    /// Dropping it kills the worker and leaves a partial [`RESTORE_FOLDER`], which the next call clears.
    pub async fn restore(
        &self,
        snapshot: &SnapshotId,
        workspace: &Path,
    ) -> Result<RestoreOutcome, Error> {
        let task = Task::Restore {
            workspace: workspace.to_owned(),
            snapshot: snapshot.clone(),
        };
        match self.run(task).await? {
            Outcome::Restore(outcome) => Ok(outcome),
            Outcome::Backup(_) => Err(Error::Crashed),
        }
    }

    async fn run(&self, task: Task) -> Result<Outcome, Error> {
        tokio::time::timeout(self.timeout, self.converse(task))
            .await
            .map_err(|_| Error::TimedOut(self.timeout))?
    }

    async fn converse(&self, task: Task) -> Result<Outcome, Error> {
        let request = Request {
            parent_pid: std::process::id(),
            repository: self.repository.clone(),
            task,
        };
        let request = zeroize::Zeroizing::new(
            serde_json::to_vec(&request).expect("a request of texts and numbers is valid JSON"),
        );
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("RAYON_NUM_THREADS", READS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Spawn)?;
        let mut stdin = child.stdin.take().expect("stdin was asked for");
        let stdout = child.stdout.take().expect("stdout was asked for");
        // A child that died at once is seen by its missing answer, not by the broken pipe.
        let _ = stdin.write_all(&request).await;
        drop(stdin);
        let mut answer = Vec::new();
        let read = stdout.take(ANSWER_BYTES).read_to_end(&mut answer).await;
        let _ = child.kill().await;
        read.map_err(Error::Spawn)?;
        match serde_json::from_slice::<Answer>(&answer) {
            Ok(Answer::Done(outcome)) => Ok(outcome),
            Ok(Answer::Failed(error)) => Err(error.into()),
            Err(_) => Err(Error::Crashed),
        }
    }
}
