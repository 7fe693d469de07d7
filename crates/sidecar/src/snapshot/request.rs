//! What the sidecar and its snapshot worker say to each other, as JSON over pipes.

use std::path::PathBuf;

use carrel_core::{LearnerId, SnapshotId};
use carrel_protocol::Endpoint;
use carrel_protocol::vault::DataKey;
use serde::{Deserialize, Serialize};

use super::error::Failure;

/// A learner's snapshots, with what opens them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Repository {
    /// The vault.
    pub endpoint: Endpoint,
    /// Whose word is taken for who it is, in PEM; empty: the machine's authorities.
    pub authorities: String,
    /// Whose.
    pub learner: LearnerId,
    /// The incarnation's token.
    pub token: String,
    /// The learner's data key, as the vault gives it.
    pub key: DataKey,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("endpoint", &self.endpoint)
            .field("learner", &self.learner)
            .finish_non_exhaustive()
    }
}

/// What a snapshot may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all files together, as their lengths say.
    pub max_bytes: u64,
    /// Files, folders and links together.
    pub max_files: u64,
    /// Bytes of a path from the workspace's root.
    pub max_path_bytes: u64,
    /// What is left out: a name anywhere (`node_modules`), or with a slash a path from the root (`data/cache`).
    pub exclude: Vec<String>,
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOutcome {
    /// The snapshot, durable in the vault.
    pub snapshot_id: SnapshotId,
    /// Bytes that were stored for it, after compression.
    pub new_bytes: u64,
    /// Bytes of all files in it.
    pub total_bytes: u64,
    /// Files in it.
    pub files: u64,
    /// Sockets, devices and pipes that were left out.
    pub skipped_special: u64,
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOutcome {
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Files.
    pub files: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    /// The sidecar's; a worker whose parent is another one by now ends.
    pub(super) parent_pid: u32,
    pub(super) repository: Repository,
    pub(super) task: Task,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    Backup {
        workspace: PathBuf,
        parent: Option<SnapshotId>,
        limits: Limits,
    },
    Restore {
        workspace: PathBuf,
        snapshot: SnapshotId,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done(Outcome),
    Failed(Failure),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Backup(BackupOutcome),
    Restore(RestoreOutcome),
}
