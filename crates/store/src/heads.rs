//! The epoch fence and the heads: which workspace is a learner's, and who may move it.

use carrel_core::event::{Reply, Usage};
use carrel_core::{Epoch, EventVersion, Generation, LearnerId, RepositoryId, SnapshotId, TurnId};
use jiff::Timestamp;

use crate::Result;
use crate::turns::{Attachment, Timing};

/// The newest committed workspace of a learner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Its number; 0 when nothing was committed yet.
    pub generation: Generation,
    /// Its snapshot; `None` for an empty workspace.
    pub snapshot: Option<SnapshotId>,
}

/// One committed workspace in a learner's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRow {
    /// Its number.
    pub generation: Generation,
    /// Its snapshot; `None` for an empty workspace.
    pub snapshot: Option<SnapshotId>,
    /// The generation it came from.
    pub parent: Generation,
    /// When it was committed.
    pub time: Timestamp,
    /// The turn it ended, if it ended one.
    pub turn: Option<TurnId>,
    /// Whether it was proved damaged.
    pub damaged: bool,
    /// Whether its snapshot was removed by retention.
    pub expired: bool,
}

/// What the first contact of an incarnation gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// The epoch is current; this is the head and the repository.
    Current {
        /// The head.
        head: Head,
        /// The repository.
        repository: RepositoryId,
    },
    /// The epoch is below the fence.
    Stale {
        /// The fence.
        fence: Epoch,
    },
    /// No such learner, or it is being erased.
    NoLearner,
}

/// A commit: the head's move and, if it ends a turn, the turn's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub learner: LearnerId,
    /// The incarnation that commits.
    pub epoch: Epoch,
    /// The head's number afterwards; the parent's plus one.
    pub generation: Generation,
    /// The head's snapshot before.
    pub parent: Option<SnapshotId>,
    /// The head's snapshot afterwards.
    pub snapshot: SnapshotId,
    /// The turn that ends with it.
    pub turn: Option<TurnResult>,
}

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnResult {
    /// The turn.
    pub turn_id: TurnId,
    /// Whether it was stopped by a wish.
    pub stopped: bool,
    /// The reply.
    pub reply: Reply,
    /// Content of the reply's files, in the reply's order.
    pub files: Vec<Attachment>,
    /// Where the time went; `queue` and `wake` are the store's to keep from the attempt.
    pub timing: Timing,
    /// What the operator should know, if anything.
    pub operator_note: String,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is committed (now, or since an equal call before).
    Committed {
        /// The learner's event version at the commit's event.
        version: EventVersion,
        /// What the turn used, from the ledger; nothing without a turn.
        usage: Usage,
        /// Whether an equal call came before.
        repeated: bool,
    },
    /// The epoch is below the fence.
    StaleEpoch {
        /// The fence.
        fence: Epoch,
    },
    /// The head is not at the parent.
    HeadMoved {
        /// Where it is.
        head: Head,
    },
    /// The turn is not running in this epoch: it ended, or runs elsewhere.
    TurnNotRunning,
    /// No such learner, or it is being erased.
    NoLearner,
}

/// What came of an operator's restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// This is the head now.
    Head(Head),
    /// A newer incarnation than the learner was seen to sleep after has been here.
    StaleEpoch {
        /// The fence.
        fence: Epoch,
    },
    /// No such learner or generation, or it is damaged or expired.
    Nothing,
}

/// A wrapped data key, as the vault keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// How it is wrapped, as in `A256GCM`.
    pub algorithm: String,
    /// Which key-encryption key wrapped it.
    pub key_id: String,
    /// The wrapped bytes with their nonce.
    pub wrapped: Vec<u8>,
}

impl std::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrappedKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// First contacts of a learner's incarnations wait until this is dropped.
#[derive(Default)]
pub struct KeptAway(Option<Box<dyn std::any::Any + Send + Sync>>);

impl KeptAway {
    /// Kept by what is dropped with it.
    pub fn by(keeper: impl std::any::Any + Send + Sync) -> Self {
        Self(Some(Box::new(keeper)))
    }
}

impl std::fmt::Debug for KeptAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeptAway").field(&self.0.is_some()).finish()
    }
}

/// The epoch fence and the heads.
#[async_trait::async_trait]
pub trait Heads: Send + Sync {
    /// An incarnation's contact: in one transaction raises the fence to a higher epoch and reads the head; a lower epoch
    /// is refused with the fence.
    async fn contact(&self, learner: &LearnerId, epoch: Epoch) -> Result<Contact>;

    /// Commits: epoch not fenced, the turn running in this epoch, head at the parent's generation and snapshot; then in the
    /// same transaction moves the head and writes outcome, reply, event (`done` or `snapshotted`) and outbox. An equal call
    /// gets the same answer whatever came after it (`timing` and `operator_note` do not count), also when its epoch is fenced by then.
    async fn commit(&self, commit: &Commit, now: Timestamp) -> Result<Committed>;

    /// Keeps a learner's incarnations from their first contact while objects of its repository are removed, in whatever process
    /// they ask. `None`: somebody keeps them already, or one is at its first contact now.
    async fn keep_away(&self, learner: &LearnerId) -> Result<Option<KeptAway>>;

    /// The head; `None`: no such learner.
    async fn head(&self, learner: &LearnerId) -> Result<Option<(Head, RepositoryId)>>;

    /// The newest generation of a learner; `None`: it has none. The head must be it.
    async fn newest_generation(&self, learner: &LearnerId) -> Result<Option<GenerationRow>>;

    /// A learner's history, newest first.
    async fn generations(&self, learner: &LearnerId) -> Result<Vec<GenerationRow>>;

    /// Keeps it that a generation was proved damaged.
    async fn mark_damaged(&self, learner: &LearnerId, generation: Generation) -> Result<()>;

    /// Keeps it that retention removed a generation's snapshot.
    async fn mark_expired(&self, learner: &LearnerId, generations: &[Generation]) -> Result<()>;

    /// Takes the state of generation `to` as a new generation whose parent is the head `from`, which was proved damaged:
    /// event `fell_back` with the turns committed after `to`, which become context of the next turn and are never run again.
    /// `to` = 0 means an empty workspace. Marks `from` damaged. The new head; `None` when the head is not `from` any more,
    /// or there is no such learner.
    async fn fall_back(
        &self,
        learner: &LearnerId,
        from: Generation,
        to: Generation,
        now: Timestamp,
    ) -> Result<Option<Head>>;

    /// Takes the state of generation `to` as a new generation by an operator's wish (event `restored`). The caller has seen
    /// to it that the learner sleeps; one who has seen it of a certain epoch names that, and the fence is passed with it.
    async fn restore(
        &self,
        learner: &LearnerId,
        to: Generation,
        asleep: Option<Epoch>,
        now: Timestamp,
    ) -> Result<Restored>;

    /// The learner's wrapped data key.
    async fn wrapped_key(&self, learner: &LearnerId) -> Result<Option<WrappedKey>>;

    /// Stores a wrapped data key if there is none; gives the one that is there then. `None`: no such learner.
    async fn put_key_if_absent(
        &self,
        learner: &LearnerId,
        key: &WrappedKey,
    ) -> Result<Option<WrappedKey>>;

    /// Replaces a wrapped data key by the same key wrapped anew, if it is still `old`.
    async fn rewrap_key(
        &self,
        learner: &LearnerId,
        old: &WrappedKey,
        new: &WrappedKey,
    ) -> Result<bool>;

    /// Destroys the data key of a repository. Repeatable; another life of the same id has another repository, and keeps its key.
    async fn destroy_key(&self, learner: &LearnerId, repository: RepositoryId) -> Result<()>;
}
