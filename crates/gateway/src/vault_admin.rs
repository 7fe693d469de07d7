//! What operators ask of the vault; the executable adapts the vault to it.

use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_protocol::vault::{ResticAccess, Rewrapped, Verified};

/// Why the vault did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such learner, or it is being erased.
    #[error("there is no such learner")]
    NoLearner,
    /// No such snapshot of this learner, or its content is gone.
    #[error("there is no such snapshot")]
    NoSnapshot,
    /// Its state does not allow it: the learner is awake, the snapshot damaged or in use.
    #[error("{0}")]
    Conflict(String),
    /// The store or the storage is away.
    #[error("the vault cannot be reached while {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What operators ask of the vault.
#[async_trait::async_trait]
pub trait VaultAdmin: Send + Sync + 'static {
    /// Takes an older snapshot's state as a new generation; the learner sleeps. The new generation.
    async fn restore(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
    ) -> Result<Generation, Error>;

    /// Reads all of a snapshot and compares it with its hashes.
    async fn verify(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<Verified, Error>;

    /// Removes one snapshot that is not the newest.
    async fn remove(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<(), Error>;

    /// Lets stock `restic` open the learner's repository; makes its password when first asked for.
    async fn restic(&self, learner: &LearnerId) -> Result<ResticAccess, Error>;

    /// Wraps every learner's data key by the first key of the key file. Repeatable.
    async fn rewrap(&self) -> Result<Rewrapped, Error>;

    /// Destroys the closed learner's key and removes its objects, then its rows. Repeatable.
    async fn erase(&self, learner: &LearnerId) -> Result<(), Error>;
}
