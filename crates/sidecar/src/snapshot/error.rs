//! Why a snapshot was not taken or not restored.

use std::time::Duration;

use carrel_core::Epoch;
use serde::{Deserialize, Serialize};

/// Which limit of a workspace was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Bytes of all files together.
    #[strum(to_string = "bytes in all files")]
    Bytes,
    /// Files, folders and links.
    #[strum(to_string = "files, folders and links")]
    Files,
    /// The longest path, in bytes, from the workspace's root.
    #[strum(to_string = "bytes in a path")]
    Path,
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The workspace cannot be snapshotted as it is (`workspace_limit`): the turn fails, its changes are discarded.
    Workspace,
    /// This incarnation is over: another has a higher epoch, or the token is refused.
    Fenced,
    /// The stored snapshot may be damaged: report it to the vault, which proves it or not.
    Damaged,
    /// The storage or the vault does not answer well: try again later.
    Storage,
    /// Our own fault.
    Internal,
}

/// Why a snapshot was not taken or not restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The workspace holds more than its class allows.
    #[error("the workspace has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: LimitKind,
        /// How much is allowed.
        limit: u64,
    },
    /// Something in the workspace cannot be read.
    #[error("the workspace has something that cannot be read: {0}")]
    Unreadable(String),
    /// The workspace to restore into is not empty.
    #[error("the workspace to restore into is not empty")]
    NotEmpty,
    /// A higher epoch exists.
    #[error("a newer incarnation exists (fence {0:?})")]
    Fenced(Option<Epoch>),
    /// The vault refused the token.
    #[error("the vault refused the token")]
    Unauthorised,
    /// The vault's storage is full.
    #[error("the vault's storage is full")]
    StorageFull,
    /// The vault or its storage failed.
    #[error("the vault does not answer well: {0}")]
    Storage(String),
    /// The stored data does not add up to the snapshot.
    #[error("the snapshot cannot be read whole: {0}")]
    Damaged(String),
    /// Writing into the workspace failed (say, it is full).
    #[error("the workspace cannot be written: {0}")]
    Workspace(String),
    /// The worker ended without an answer.
    #[error("the snapshot worker ended without an answer")]
    Crashed,
    /// The worker took too long.
    #[error("the snapshot worker took more than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The worker could not be started or heard.
    #[error("the snapshot worker could not be run")]
    Spawn(#[source] std::io::Error),
}

impl Error {
    /// The learner's fence, when that is what refused and it was named.
    pub fn fence(&self) -> Option<Epoch> {
        match self {
            Self::Fenced(fence) => *fence,
            _ => None,
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Limit { .. } | Self::Unreadable(_) => ErrorKind::Workspace,
            Self::Fenced(_) | Self::Unauthorised => ErrorKind::Fenced,
            Self::Damaged(_) => ErrorKind::Damaged,
            Self::StorageFull | Self::Storage(_) | Self::TimedOut(_) => ErrorKind::Storage,
            Self::NotEmpty | Self::Workspace(_) | Self::Crashed | Self::Spawn(_) => {
                ErrorKind::Internal
            }
        }
    }
}

/// What a worker may answer instead of an outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    Limit { what: LimitKind, limit: u64 },
    Unreadable(String),
    NotEmpty,
    Fenced(Option<Epoch>),
    Unauthorised,
    StorageFull,
    Storage(String),
    Damaged(String),
    Workspace(String),
    Crashed,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Limit { what, limit } => Self::Limit { what, limit },
            Failure::Unreadable(what) => Self::Unreadable(what),
            Failure::NotEmpty => Self::NotEmpty,
            Failure::Fenced(fence) => Self::Fenced(fence),
            Failure::Unauthorised => Self::Unauthorised,
            Failure::StorageFull => Self::StorageFull,
            Failure::Storage(what) => Self::Storage(what),
            Failure::Damaged(what) => Self::Damaged(what),
            Failure::Workspace(what) => Self::Workspace(what),
            Failure::Crashed => Self::Crashed,
        }
    }
}
