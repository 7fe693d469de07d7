//! The processes that share the store: which there are, and who of them does what only one may do at a time.

use carrel_core::OwnerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Result;

/// What a process does.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Takes messages, runs turns.
    Gateway,
    /// Makes and ends pods.
    Fleet,
}

/// A process that says that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name among owners of turns.
    pub id: OwnerId,
    /// What it does.
    pub role: Role,
    /// Where others reach it; empty when nobody does.
    pub address: String,
    /// What others should know of it, as JSON.
    pub report: String,
}

/// What one process at a time does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Task {
    /// Being the fleet.
    Fleet,
    /// Looking after the repositories of learners that sleep.
    Maintenance,
    /// Taking over into the store what objects of Kubernetes say of learners and classes.
    Mirror,
}

/// A task while it is ours. Dropping it gives it up; so does the end of the process, at once.
#[derive(Debug)]
pub struct Lead {
    lost: CancellationToken,
    _release: DropGuard,
}

impl Lead {
    /// Ends `release` when it is dropped; whoever finds it lost cancels `lost`.
    pub fn new(lost: CancellationToken, release: CancellationToken) -> Self {
        Self {
            lost,
            _release: release.drop_guard(),
        }
    }

    /// Ends when the task may be another's: the store has not been heard of for seconds.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

/// The processes that share the store.
#[async_trait::async_trait]
pub trait Processes: Send + Sync {
    /// Takes a task for this process. `None`: another has it.
    async fn lead(&self, task: Task) -> Result<Option<Lead>>;

    /// Says until when a process is there; again and again. Those who were to be there no longer are forgotten.
    async fn announce(&self, process: &Process, now: Timestamp, until: Timestamp) -> Result<()>;

    /// A process goes.
    async fn withdraw(&self, id: OwnerId) -> Result<()>;

    /// Processes of a role that are there.
    async fn processes(&self, role: Role, now: Timestamp) -> Result<Vec<Process>>;
}
