//! The gateway's HTTP interface as clients see it.

use carrel_core::event::{Reply, ToolStatus, Usage};
use carrel_core::learner::{Condition, LearnerState, StartKind};
use carrel_core::turn::TurnState;
use carrel_core::{Epoch, Generation, LearnerId, MessageId, NanoUsd, SnapshotId, TurnId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::sidecar::AttachmentData;

/// The body of `POST /v1/learners/{id}/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostMessage {
    /// What the learner writes.
    pub text: String,
    /// Files with it.
    #[serde(default)]
    pub attachments: Vec<AttachmentData>,
}

/// The answer (202) to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageAccepted {
    /// The message.
    pub message_id: MessageId,
    /// Its turn.
    pub turn_id: TurnId,
    /// Where the learner is.
    pub learner_state: LearnerState,
}

/// A turn, as `GET /v1/learners/{id}/turns/{turn_id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Its id.
    pub turn_id: TurnId,
    /// Where it is.
    pub state: TurnState,
    /// Its message.
    pub message: Message,
    /// Whether it ended by a wish to stop.
    #[serde(default)]
    pub stopped: bool,
    /// The reply, when it ended well.
    pub reply: Option<Reply>,
    /// The tools that it used, in the order in which their use began.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
    /// What it used.
    pub usage: Usage,
    /// The failure, when it ended badly.
    pub error: Option<TurnError>,
    /// The committed snapshot.
    pub snapshot_id: Option<SnapshotId>,
    /// Attempts begun.
    pub attempts: u32,
    /// How the incarnation of the last attempt began.
    pub start_kind: Option<StartKind>,
    /// Where the time went.
    pub timing_ms: TimingMs,
}

/// A use of a tool, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// A message, as history and turns show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub message_id: MessageId,
    /// What the learner wrote.
    pub text: String,
    /// Its files, without content.
    pub attachments: Vec<AttachmentName>,
    /// When it was accepted.
    pub sent_time: Timestamp,
}

/// A file of a message, without content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentName {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub media_type: String,
}

/// Why a turn failed, for the learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnError {
    /// For programs.
    pub code: String,
    /// A sentence.
    pub detail: String,
    /// Whether sending it again may help.
    pub retryable: bool,
    /// What it had said until then.
    #[serde(default)]
    pub partial_text: String,
}

/// Where a turn's time went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimingMs {
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

/// The answer of `GET /v1/learners/{id}/messages`, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The messages with their turns.
    pub messages: Vec<HistoryEntry>,
}

/// A message with its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Its turn's id.
    pub turn_id: TurnId,
    /// Its turn.
    pub turn: HistoryTurn,
}

/// A turn, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryTurn {
    /// Where it is.
    pub state: TurnState,
    /// Whether it ended by a wish to stop.
    pub stopped: bool,
    /// The tools that it used, in the order in which their use began.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
    /// The reply.
    pub reply: Option<Reply>,
    /// The failure.
    pub error: Option<TurnError>,
}

/// What a turn waits for or does, as the event `state` says it.
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
pub enum TurnStep {
    /// Accepted, waiting for its place.
    Queued,
    /// The learner wakes.
    Waking,
    /// Its workspace is restored.
    Restoring,
    /// The agent works.
    Running,
    /// The snapshot is taken.
    Snapshotting,
}

/// The data of a server-sent event; the event's name is the tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "type", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum StreamEvent {
    /// What the turn waits for or does.
    State {
        /// The turn.
        turn_id: TurnId,
        /// The step.
        state: TurnStep,
        /// A line for people; may be empty.
        detail: String,
    },
    /// More of the reply.
    Delta {
        /// The turn.
        turn_id: TurnId,
        /// The piece.
        text: String,
    },
    /// A tool use began or ended.
    Tool {
        /// The turn.
        turn_id: TurnId,
        /// The tool use within the turn.
        tool_id: String,
        /// The tool's name.
        name: String,
        /// How far it is.
        status: ToolStatus,
        /// One line for people.
        summary: String,
    },
    /// Earlier deltas of this turn are void.
    Restart {
        /// The turn.
        turn_id: TurnId,
        /// Why, for people.
        reason: String,
    },
    /// The turn committed.
    Done {
        /// The turn.
        turn_id: TurnId,
        /// The reply.
        reply: Reply,
        /// Present and true when it ended by a wish to stop.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stopped: bool,
        /// What it used.
        usage: Usage,
        /// The committed snapshot; absent when it was stopped before it ran.
        snapshot_id: Option<SnapshotId>,
    },
    /// The turn failed.
    Error {
        /// The turn.
        turn_id: TurnId,
        /// For programs.
        code: String,
        /// A sentence.
        detail: String,
        /// Whether sending it again may help.
        retryable: bool,
    },
}

impl StreamEvent {
    /// The turn that it is about.
    pub fn turn_id(&self) -> TurnId {
        match self {
            Self::State { turn_id, .. }
            | Self::Delta { turn_id, .. }
            | Self::Tool { turn_id, .. }
            | Self::Restart { turn_id, .. }
            | Self::Done { turn_id, .. }
            | Self::Error { turn_id, .. } => *turn_id,
        }
    }
}

/// The body of `POST /admin/v1/learners`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateLearner {
    /// Its id: a DNS label.
    pub id: LearnerId,
    /// Its class; absent: `default`.
    #[serde(default)]
    pub class: Option<String>,
    /// Who it is elsewhere.
    #[serde(default)]
    pub aliases: Vec<AliasBody>,
}

/// The body of `PATCH /admin/v1/learners/{id}`; takes effect at the next wake.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchLearner {
    /// Its class.
    #[serde(default)]
    pub class: Option<String>,
    /// Who it is elsewhere; replaces all.
    #[serde(default)]
    pub aliases: Option<Vec<AliasBody>>,
}

/// An identity elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasBody {
    /// The channel.
    pub channel: String,
    /// The identity there.
    pub external_id: String,
}

/// A learner's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learner {
    /// Its id.
    pub id: LearnerId,
    /// Its class.
    pub class: String,
    /// Who it is elsewhere.
    pub aliases: Vec<AliasBody>,
    /// Where it is, one word.
    pub state: LearnerState,
    /// Why, or what it waits for.
    pub state_detail: String,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// When it was made.
    pub created_time: Timestamp,
    /// When it last wrote or was answered.
    pub last_activity_time: Option<Timestamp>,
    /// Its newest snapshot.
    pub newest_snapshot: Option<SnapshotSummary>,
    /// Charged since midnight (UTC).
    pub cost_today_nano_usd: NanoUsd,
    /// How it is kept apart.
    pub isolation: String,
    /// Limits that cannot be set here.
    pub limits_missing: Vec<String>,
    /// Its pod's name while it has one.
    pub pod: Option<String>,
    /// What holds of it, `Ready` first.
    pub conditions: Vec<Condition>,
    /// Why its last turn failed; absent when that did not, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// A turn that failed, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// The turn.
    pub turn_id: TurnId,
    /// The code, as its learner was told.
    pub code: String,
    /// What the operator should know; the learner is never told.
    pub reason: String,
}

/// The answer of `GET /admin/v1/learners`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerList {
    /// By id.
    pub learners: Vec<Learner>,
    /// Ask for more with `?after=`.
    pub next: Option<LearnerId>,
}

/// A snapshot, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// Its id; absent for an empty workspace.
    pub snapshot_id: Option<SnapshotId>,
    /// Its generation, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// When it was committed.
    pub time: Timestamp,
    /// The turn that it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// Whether it was proved damaged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

/// The answer of `GET /admin/v1/learners/{id}/snapshots`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotSummary>,
}

/// The body of `POST /admin/v1/learners/{id}/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The snapshot to take.
    pub snapshot_id: SnapshotId,
}

/// The body of `POST /admin/v1/learners/{id}/tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateToken {
    /// How long it lives; absent: 43,200.
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
}

/// A learner's token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token; it is not shown again.
    pub token: String,
    /// When it ends.
    pub expires_time: Timestamp,
}

/// A chat link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The address with its single-use code.
    pub url: String,
    /// When the code ends.
    pub expires_time: Timestamp,
}

/// The body of `POST /v1/sign-in` and of `POST /console/sign-in`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// A single-use code.
    #[serde(default)]
    pub code: Option<String>,
    /// The admin token (console only).
    #[serde(default)]
    pub token: Option<String>,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The learner; absent for the operator.
    pub learner: Option<LearnerId>,
}
