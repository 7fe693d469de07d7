//! The durable events of a learner: append-only, numbered without holes, the source of every read model.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{
    ClassName, Epoch, EventVersion, Generation, LearnerId, MessageId, SnapshotId, TurnId,
};
use crate::money::NanoUsd;
use crate::turn::{Death, FailureCode};

/// One event of one learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Whose.
    pub learner: LearnerId,
    /// Its number among the learner's events, from 1, without holes.
    pub version: EventVersion,
    /// When it was written.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumDiscriminants,
)]
#[serde(tag = "type", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EventBody {
    /// The learner was made.
    LearnerCreated {
        /// Its class.
        class: ClassName,
    },
    /// A message was accepted; its turn waits.
    Queued {
        /// The turn.
        turn_id: TurnId,
        /// The message.
        message_id: MessageId,
    },
    /// An attempt of a turn began.
    Started {
        /// The turn.
        turn_id: TurnId,
        /// The incarnation it runs in.
        epoch: Epoch,
        /// Which attempt, from 1.
        attempt: u32,
        /// How many turns the agent is told of with it, because a fall-back took them from its workspace.
        #[serde(default, skip_serializing_if = "is_none")]
        lost_turns_told: u32,
    },
    /// An attempt died; what it said is void and the turn waits again.
    Restarted {
        /// The turn.
        turn_id: TurnId,
        /// Who died.
        death: Death,
        /// What was seen, for people.
        reason: String,
    },
    /// The agent used a tool.
    Tool {
        /// The turn.
        turn_id: TurnId,
        /// The tool use within the turn.
        tool_id: String,
        /// The tool's name.
        name: String,
        /// `started`, `done` or `failed`.
        status: ToolStatus,
        /// One line for people.
        summary: String,
    },
    /// A turn committed.
    Done {
        /// The turn.
        turn_id: TurnId,
        /// Whether it was stopped by a wish.
        stopped: bool,
        /// The reply.
        reply: Reply,
        /// What it used.
        usage: Usage,
        /// The committed snapshot; absent when the turn was stopped before it ran.
        snapshot_id: Option<SnapshotId>,
        /// The committed generation.
        generation: Generation,
        /// What the operator should know, if anything; never shown to the learner.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        operator_note: String,
    },
    /// A turn ended without a commit.
    Failed {
        /// The turn.
        turn_id: TurnId,
        /// Why.
        code: FailureCode,
        /// A sentence for the learner.
        detail: String,
        /// Whether sending it again may help.
        retryable: bool,
        /// What it had said.
        partial_text: String,
        /// What the operator should know; never shown to the learner.
        operator_reason: String,
    },
    /// A workspace was committed without a turn: the final snapshot before sleep, or one that an operator asked for.
    Snapshotted {
        /// The snapshot.
        snapshot_id: SnapshotId,
        /// The committed generation.
        generation: Generation,
    },
    /// The head was proved damaged and an older state took its place.
    FellBack {
        /// The damaged generation.
        from: Generation,
        /// The intact generation whose state was taken.
        to: Generation,
        /// The new generation that holds it.
        generation: Generation,
        /// Turns whose workspace changes were lost.
        lost_turns: Vec<TurnId>,
    },
    /// An operator chose an older state.
    Restored {
        /// The generation whose state was taken.
        to: Generation,
        /// The new generation that holds it.
        generation: Generation,
    },
    /// The learner woke or fell asleep or the like.
    StateChanged {
        /// The state, one word.
        state: crate::learner::LearnerState,
        /// The newest epoch.
        epoch: Epoch,
    },
    /// Money was charged.
    Charged {
        /// For which model, `provider/model`.
        model: String,
        /// In which class the learner was.
        class: ClassName,
        /// How much.
        cost: NanoUsd,
        /// Tokens read, cached ones included.
        input_tokens: u64,
        /// Tokens written.
        output_tokens: u64,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// How far a tool use is.
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
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ToolStatus {
    /// It began.
    Started,
    /// It ended well.
    Done,
    /// It ended badly.
    Failed,
}

/// What the agent answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The text.
    pub text: String,
    /// The files, in order; their content is fetched by place.
    #[serde(default)]
    pub files: Vec<ReplyFile>,
}

/// A file of a reply, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyFile {
    /// Its name, no path.
    pub name: String,
    /// Its media type (RFC 6838).
    pub media_type: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What a turn used of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in nano-USD.
    pub cost_nano_usd: NanoUsd,
}

/// A place in the log of all learners: readers resume after it. Opaque to clients.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Cursor {
    /// The transaction's place (always 0 in stores with one writer).
    pub transaction: u64,
    /// The row's place.
    pub sequence: u64,
}

/// An event with its place in the log of all learners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEvent {
    /// The place.
    pub cursor: Cursor,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl EventBody {
    /// The turn that the event is about, if it is about one.
    pub fn turn_id(&self) -> Option<TurnId> {
        match self {
            Self::Queued { turn_id, .. }
            | Self::Started { turn_id, .. }
            | Self::Restarted { turn_id, .. }
            | Self::Tool { turn_id, .. }
            | Self::Done { turn_id, .. }
            | Self::Failed { turn_id, .. } => Some(*turn_id),
            Self::LearnerCreated { .. }
            | Self::Snapshotted { .. }
            | Self::FellBack { .. }
            | Self::Restored { .. }
            | Self::StateChanged { .. }
            | Self::Charged { .. } => None,
        }
    }

    /// The event as JSON, for stores.
    ///
    /// # Errors
    /// Never for the types above; `serde_json` says so only at run time.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}
