//! Why the vault could not do what was asked.

use carrel_core::Epoch;
use carrel_protocol::{Code, Problem};

use crate::objects::Trouble;

const CONTRADICTION: &str =
    "the learner's head and its newest generation contradict each other: run 'carrel store check'";

/// Why the vault could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] carrel_store::Error),
    /// The object storage failed; nothing is proved by it.
    #[error("the storage of snapshots failed while {doing}: {}", Trouble::of(.source).advice())]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A repository's data do not add up; says nothing about its objects.
    #[error("the snapshot cannot be read: {0}")]
    Unreadable(String),
    /// Something was reported as damaged and is not.
    #[error("nothing is proved damaged")]
    NotProved,
    /// The epoch is below the fence.
    #[error("a newer incarnation exists (fence {0})")]
    StaleEpoch(Epoch),
    /// No such learner, or it is being erased.
    #[error("there is no such learner")]
    NoLearner,
    /// No such snapshot of this learner.
    #[error("there is no such snapshot")]
    NoSnapshot,
    /// The learner's head is not its newest generation.
    #[error("{CONTRADICTION}")]
    Contradiction,
    /// The snapshot is the learner's newest one, its state.
    #[error("it is the newest snapshot, which is the learner's state and stays")]
    Newest,
    /// The learner is awake, and this is done only while it sleeps.
    #[error("the learner is awake")]
    Awake,
    /// A key is missing, malformed or does not open what it should.
    #[error("{0}")]
    Key(&'static str),
    /// The file of the key-encryption key does not serve.
    #[error("{place}: {what}")]
    KeyFile {
        /// The file, and the line in it where there is one.
        place: String,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// A file of the vault's own could not be read or written.
    #[error("{doing}")]
    File {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Stock restic has no way to where the snapshots are.
    #[error("stock restic cannot open this storage of snapshots")]
    NotForRestic,
    /// A defect.
    #[error("a task of the vault ended badly: {0}")]
    Internal(String),
}

impl Error {
    /// The answer for a caller; details of our own failures stay in the log.
    pub fn problem(&self) -> Problem {
        match self {
            Self::StaleEpoch(fence) => Problem::stale_epoch(*fence),
            Self::Store(_) => Problem::new(Code::Unavailable, "the store is away"),
            Self::Storage { source, .. } => {
                let advice = Trouble::of(source).advice();
                Problem::new(
                    Code::Unavailable,
                    format!("the storage of snapshots: {advice}"),
                )
            }
            Self::NotProved => Problem::new(Code::Unavailable, "nothing is proved damaged"),
            Self::Unreadable(_) => Problem::new(Code::SnapshotUnreadable, ""),
            // Not "not found": that would look like a missing object.
            Self::NoLearner => Problem::new(Code::Forbidden, "there is no such learner"),
            Self::NoSnapshot => Problem::new(Code::NotFound, "there is no such snapshot"),
            Self::Contradiction => Problem::new(Code::Unavailable, CONTRADICTION),
            Self::Awake => Problem::new(Code::Conflict, "put the learner to sleep first"),
            Self::Newest | Self::NotForRestic => Problem::new(Code::Conflict, self.to_string()),
            Self::Key(_) | Self::KeyFile { .. } | Self::File { .. } | Self::Internal(_) => {
                Problem::new(Code::Internal, "")
            }
        }
    }

    pub(crate) fn storage(doing: &'static str) -> impl FnOnce(object_store::Error) -> Self {
        move |source| Self::Storage { doing, source }
    }
}
