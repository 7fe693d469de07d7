//! The inbox and its turns. One message is one turn; a learner's turns run one at a time, in order.

use carrel_core::event::{EventBody, Reply, ToolStatus, Usage};
use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Death, Deaths, FailureCode, TurnState};
use carrel_core::{
    Epoch, EventVersion, LearnerId, LeaseGeneration, MessageId, OwnerId, SnapshotId, TurnId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// The channel whose learners read the events themselves: nothing is left in the outbox for it.
pub const WEB_CHANNEL: &str = "web";

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, no path.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// A message to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Whose.
    pub learner: LearnerId,
    /// The id it gets if it is new.
    pub message_id: MessageId,
    /// The id its turn gets if it is new.
    pub turn_id: TurnId,
    /// The sender's key; the unique key is the arbiter of repeats.
    pub idempotency_key: String,
    /// SHA-256 of the body, to know a repeat from a reuse.
    pub body_hash: [u8; 32],
    /// The channel it came by, as in `web`.
    pub channel: String,
    /// The text.
    pub text: String,
    /// The files.
    pub attachments: Vec<Attachment>,
    /// How many turns of this learner may wait; the class's `turn.maxQueued`.
    pub max_queued: u32,
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the store (now, or since an equal call before).
    Stored {
        /// The message.
        message_id: MessageId,
        /// Its turn.
        turn_id: TurnId,
        /// Whether an equal call came before.
        repeated: bool,
    },
    /// The key was used with another body.
    KeyReused,
    /// Too many turns wait.
    QueueFull,
    /// No such learner, or it is being erased.
    NoLearner,
}

/// A turn as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Its id.
    pub turn_id: TurnId,
    /// Whose.
    pub learner: LearnerId,
    /// Its message.
    pub message: Message,
    /// Where it is.
    pub state: TurnState,
    /// The incarnation it runs in or ran in last.
    pub epoch: Option<Epoch>,
    /// Attempts begun.
    pub attempts: u32,
    /// Deaths under it.
    pub deaths: Deaths,
    /// Whether someone wants it stopped.
    pub stop_requested: bool,
    /// Whether it ended by that wish.
    pub stopped: bool,
    /// The reply, when `done` or `stopped`.
    pub reply: Option<Reply>,
    /// What it used.
    pub usage: Usage,
    /// The failure, when `failed`.
    pub failure: Option<Failure>,
    /// The committed snapshot.
    pub snapshot_id: Option<SnapshotId>,
    /// How the incarnation of the last attempt began.
    pub start_kind: Option<StartKind>,
    /// Where the time went.
    pub timing: Timing,
    /// The learner's event version at the turn's newest event.
    pub version: EventVersion,
}

/// A message as it stands, without the content of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub message_id: MessageId,
    /// The text.
    pub text: String,
    /// Names and media types of its files.
    pub attachments: Vec<(String, String)>,
    /// When it was accepted.
    pub sent_time: Timestamp,
}

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code.
    pub code: FailureCode,
    /// A sentence for the learner.
    pub detail: String,
    /// Whether sending it again may help.
    pub retryable: bool,
    /// What it had said.
    pub partial_text: String,
    /// What the operator should know; never shown to the learner.
    pub operator_reason: String,
}

/// Where a turn's time went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// From acceptance to its place.
    pub queue: u64,
    /// Until an incarnation answered.
    pub wake: u64,
    /// Of that, restoring the workspace.
    pub restore: u64,
    /// The agent's part.
    pub agent: u64,
    /// Freezing, snapshot and commit.
    pub snapshot: u64,
}

/// Who owns a running turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The process.
    pub owner: OwnerId,
    /// The lease's number; each write of the owner carries it.
    pub generation: LeaseGeneration,
}

/// Who runs the oldest open turn of a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// No turn is open.
    NothingOpen,
    /// Nobody holds a live lease on it.
    Free,
    /// This one holds a live lease on it.
    Held(OwnerId),
}

impl Ownership {
    /// From what is read: whether a turn is open, and who holds a live lease on it.
    pub fn of(open: Option<Option<OwnerId>>) -> Self {
        match open {
            None => Self::NothingOpen,
            Some(None) => Self::Free,
            Some(Some(owner)) => Self::Held(owner),
        }
    }
}

/// A turn claimed by an owner, with all that is needed to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The turn.
    pub turn: Turn,
    /// The lease.
    pub lease: Lease,
    /// The message's files.
    pub attachments: Vec<Attachment>,
}

/// An attempt that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The version of its event `started`.
    pub version: EventVersion,
    /// Its number.
    pub attempt: u32,
    /// Messages and replies that a fall-back took from the agent's workspace and that it has not been told since. Known
    /// only now: it is the waking for this turn that finds the damage.
    pub context: Vec<(String, String)>,
}

/// What came of a write by an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerWrite<T = EventVersion> {
    /// It was written.
    Written(T),
    /// The lease is not current: somebody else owns the turn. The former owner lets go.
    NotOwner,
    /// The turn has ended meanwhile; its row says how.
    Ended,
    /// The epoch is below the fence.
    StaleEpoch {
        /// The fence.
        fence: Epoch,
    },
}

/// The inbox and its turns.
#[async_trait::async_trait]
pub trait Turns: Send + Sync {
    /// Takes a message: inbox row, turn and event `queued` in one transaction.
    async fn accept(&self, message: &NewMessage, now: Timestamp) -> Result<Accepted>;

    /// One turn of a learner.
    async fn turn(&self, learner: &LearnerId, turn: TurnId) -> Result<Option<Turn>>;

    /// Turns of a learner in order of acceptance, newest last: the `limit` before the message `before`, or the newest.
    async fn history(
        &self,
        learner: &LearnerId,
        before: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<Turn>>;

    /// The learner's newest turn that has ended.
    async fn last_ended(&self, learner: &LearnerId) -> Result<Option<Turn>>;

    /// Content of a file of a reply, by place.
    async fn reply_file(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        place: u32,
    ) -> Result<Option<Attachment>>;

    /// Learners whose oldest open turn nobody holds a live lease on, longest waiting first.
    async fn waiting(&self, now: Timestamp, limit: u32) -> Result<Vec<LearnerId>>;

    /// Those of them among these learners, in any order.
    async fn waiting_among(&self, learners: &[LearnerId], now: Timestamp)
    -> Result<Vec<LearnerId>>;

    /// How many turns wait or run, and when the oldest of them was accepted.
    async fn backlog(&self) -> Result<(u64, Option<Timestamp>)>;

    /// Claims the learner's oldest open turn until `until`, unless another owner's lease is live. Claiming again by the
    /// same owner gives a new lease generation. `None` may also mean that the oldest ended at this moment: the hint of its end
    /// comes, and finds the next.
    async fn claim(
        &self,
        learner: &LearnerId,
        owner: OwnerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Claimed>>;

    /// Who runs the learner's oldest open turn.
    async fn owner(&self, learner: &LearnerId, now: Timestamp) -> Result<Ownership>;

    /// Prolongs leases that are current; gives those turns for which it is not (an ended turn has no lease).
    async fn renew(&self, leases: &[(TurnId, Lease)], until: Timestamp) -> Result<Vec<TurnId>>;

    /// Ends every lease of other owners: for a process that knows it is alone. Where several run, nobody calls this: what a
    /// dead one owned is claimed by the others when its lease ends.
    async fn release_leases_except(&self, owner: OwnerId) -> Result<()>;

    /// Begins an attempt in an epoch: `running(epoch, attempt)`, event `started`.
    /// Beginning again in the epoch in which it runs already is the same attempt (a second delivery), no event. Beginning in
    /// a higher one without a word on the older counts an infrastructure death first (event `restarted`).
    async fn begin_attempt(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        start_kind: StartKind,
        now: Timestamp,
    ) -> Result<OwnerWrite<Begun>>;

    /// Appends the durable event `tool`.
    async fn tool(
        &self,
        turn: TurnId,
        lease: Lease,
        tool: &ToolUse,
        now: Timestamp,
    ) -> Result<OwnerWrite>;

    /// The attempt in `epoch` died: counts it and puts the turn back (event `restarted`), or parks it (`failed`) by
    /// [`Deaths::verdict`]. `partial_text` is kept when it parks. A death of an epoch that is not the running one is
    /// not counted again. A turn whose stop is wished does not wait again: it ends as `stopped`, and the answer is `Ended`.
    async fn attempt_died(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        death: Death,
        reason: &str,
        partial_text: &str,
        now: Timestamp,
    ) -> Result<OwnerWrite<(EventVersion, AfterDeath)>>;

    /// The incarnation of `epoch` refused the attempt before anything of it was done: the turn waits again, and neither a
    /// death is counted nor an event told. A turn whose stop is wished does not wait again: it ends as `stopped`, and the
    /// answer is `Ended`.
    async fn attempt_refused(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<OwnerWrite<()>>;

    /// Ends the turn as `failed` (event `failed`, outbox): under the lock under which a commit would end it.
    async fn fail(
        &self,
        turn: TurnId,
        lease: Lease,
        failure: &Failure,
        timing: Timing,
        now: Timestamp,
    ) -> Result<OwnerWrite>;

    /// Wants a turn stopped. One that waits ends at once (`stopped`, event `done` with `stopped`); one that runs gets a
    /// durable wish that its owner reads. The turn as it stands then; `None`: no such turn.
    async fn request_stop(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        now: Timestamp,
    ) -> Result<Option<Turn>>;

    /// What waits to be delivered by a channel other than the web, oldest first; claimed until `until`.
    async fn claim_outbox(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<OutboxItem>>;

    /// An item was delivered.
    async fn delivered(&self, item: i64) -> Result<()>;
}

/// A tool use for the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolUse {
    /// The tool use within the turn.
    pub tool_id: String,
    /// The tool's name.
    pub name: String,
    /// How far it is.
    pub status: ToolStatus,
    /// One line for people.
    pub summary: String,
}

/// An outcome that a channel should bring to its learner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub learner: LearnerId,
    /// The outcome, as its event.
    pub body: EventBody,
}
