//! What gateway and fleet say to a sidecar.
//!
//! `POST /v1/assign` takes an [`AssignRequest`]; `GET /v1/hello` and `GET /v1/ready` answer [`Hello`]; `POST /v1/turns` takes
//! a [`TurnOrder`] and answers with [`Frame`]s as NDJSON; `POST /v1/turns/{id}/stop` answers 202; `POST /v1/sleep` 202.
//! What a sidecar says at its end, in a file, is a [`Farewell`].

mod farewell;

use std::time::Duration;

use carrel_core::class::ClassSpec;
use carrel_core::event::{Reply, ToolStatus, Usage};
use carrel_core::lifecycle;
use carrel_core::turn::FailureCode;
use carrel_core::{Epoch, EventVersion, Generation, LearnerId, PodUid, SnapshotId, TurnId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Endpoint;
use crate::agent::{Exchange, Message};
use crate::token::PublicKey;

pub use farewell::Farewell;

/// In an answer of one frame a line, an empty line comes where there is no frame for so long: so each end hears that the
/// other is gone.
pub const LINE_EVERY: Duration = Duration::from_secs(2);

/// The body of `POST /v1/assign`: a JWS by the fleet's key over [`Assignment`] (see [`crate::token`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignRequest {
    /// The compact serialisation.
    pub assignment: String,
}

/// Whose a pod becomes, once and for all.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The learner.
    pub learner: LearnerId,
    /// The incarnation.
    pub epoch: Epoch,
    /// The pod that is meant.
    pub pod: PodUid,
    /// The learner's token for router and vault; never shown to the agent.
    pub token: String,
    /// The vault.
    pub vault: Endpoint,
    /// The router.
    pub router: Endpoint,
    /// Whose word is taken for who those two are, in PEM; empty: the authorities of the pod's machine.
    #[serde(default)]
    pub authorities: String,
    /// The router's egress port, when the class allows hosts and the sidecar cannot reach them itself.
    pub egress: Option<Endpoint>,
    /// Keys of those who may call this sidecar.
    pub callers: Vec<PublicKey>,
    /// The class.
    pub class: ClassSpec,
    /// The agent's time zone (`TZ`).
    pub time_zone: String,
    /// The agent's locale (`LANG`).
    pub locale: String,
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignment")
            .field("learner", &self.learner)
            .field("epoch", &self.epoch)
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

/// How far a sidecar is.
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
pub enum Phase {
    /// Unassigned; its shim is connected when `agent_connected`.
    Blank,
    /// Assigned; the workspace is restored and the agent started.
    Restoring,
    /// Waiting for a turn.
    Ready,
    /// Running one.
    Busy,
    /// No new turn is taken.
    Draining,
    /// Taking the final snapshot.
    Snapshotting,
    /// It could not start or its turn failed; it ends.
    Ending,
}

impl From<Phase> for lifecycle::Phase {
    /// What an assigned sidecar is doing, as the plan knows it.
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Blank | Phase::Restoring => Self::Restoring,
            Phase::Ready => Self::Ready,
            Phase::Busy => Self::Busy,
            Phase::Draining | Phase::Ending => Self::Draining,
            Phase::Snapshotting => Self::Snapshotting,
        }
    }
}

/// The answer of `GET /v1/hello` and `GET /v1/ready`. The latter waits until the phase is `Ready` or past it (at most 25 s).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The pod.
    pub pod: PodUid,
    /// The learner, once assigned.
    pub learner: Option<LearnerId>,
    /// The incarnation, once assigned.
    pub epoch: Option<Epoch>,
    /// How far it is.
    pub phase: Phase,
    /// Why, in a sentence for people; may be empty.
    pub detail: String,
    /// Whether the shim has connected.
    pub agent_connected: bool,
    /// Milliseconds that restoring took, once done.
    pub restore_ms: Option<u64>,
    /// Milliseconds that the agent took to be ready after that, once it is.
    #[serde(default)]
    pub agent_ms: Option<u64>,
    /// Since when neither turn nor proxied request ran; absent while one does.
    pub quiet_since: Option<Timestamp>,
    /// Whether it committed anything in its life.
    pub committed: bool,
    /// Whether it restored an older state because the newest was proved damaged.
    #[serde(default)]
    pub fell_back: bool,
    /// The learner's fence, when the vault refused this incarnation for being below it.
    #[serde(default)]
    pub fence: Option<Epoch>,
    /// Which report this is: another phase, detail, `committed`, `fell_back` or `fence` has another. Whoever gives it as `?after=` hears the
    /// next one, also when it came before they asked.
    #[serde(default)]
    pub revision: u64,
}

/// A file that comes with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentData {
    /// Its name, no path.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its content, base64 (RFC 4648).
    pub data: String,
}

/// The body of `POST /v1/turns`. The same turn again attaches to it and gets everything from the start of the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnOrder {
    /// The turn.
    pub turn_id: TurnId,
    /// Its attempt.
    pub attempt: u32,
    /// The message; its `attachments` are empty and filled from `attachments` beside it.
    pub message: Message,
    /// The message's files.
    #[serde(default)]
    pub attachments: Vec<AttachmentData>,
    /// What the workspace has lost.
    #[serde(default)]
    pub context: Vec<Exchange>,
    /// How long the turn waited for the workspace to be restored, in milliseconds; it is committed with the turn.
    #[serde(default)]
    pub restore_ms: u64,
}

/// Where a turn's time went inside the pod, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodTiming {
    /// Restoring the workspace, as it was ordered.
    #[serde(default)]
    pub restore: u64,
    /// The agent's part.
    pub agent: u64,
    /// Freezing, snapshot and commit.
    pub snapshot: u64,
}

/// One line of a turn's answer. Ends with exactly one of the last three, unless the sidecar dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    /// More of the reply.
    Text {
        /// The piece.
        text: String,
    },
    /// A tool use began or ended.
    Tool {
        /// The tool use within the turn.
        id: String,
        /// The tool's name.
        name: String,
        /// How far it is.
        status: ToolStatus,
        /// One line for people.
        summary: String,
    },
    /// What the agent is doing.
    Status {
        /// One line.
        text: String,
    },
    /// The agent has ended; the snapshot is taken.
    Snapshotting,
    /// The vault has committed the turn.
    Committed {
        /// The learner's event version of the commit.
        version: EventVersion,
        /// The committed generation.
        generation: Generation,
        /// The committed snapshot.
        snapshot_id: SnapshotId,
        /// Whether it was stopped by a wish.
        stopped: bool,
        /// The reply.
        reply: Reply,
        /// What it used.
        usage: Usage,
        /// Where the time went.
        timing: PodTiming,
    },
    /// The turn failed: nothing was committed and this sidecar ends.
    Failed {
        /// Why.
        code: FailureCode,
        /// A sentence for the learner.
        detail: String,
        /// Whether sending it again may help.
        retryable: bool,
        /// What the operator should know.
        operator_reason: String,
        /// Where the time went.
        timing: PodTiming,
    },
    /// The attempt died although this sidecar lives: nothing was committed and this sidecar ends.
    Died {
        /// Whether it was the agent's own death by a foreign signal (it counts against the message), or ours or the
        /// vault's fault (it does not).
        by_agent: bool,
        /// What was seen.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_fleet_says_besides_is_ignored() {
        let assignment = serde_json::json!({
            "learner": "ada", "epoch": 7, "pod": "00000000-0000-0000-0000-000000000003", "token": "eyJ",
            "vault": "unix:/vault.sock", "router": "http://127.0.0.1:7071", "egress": null, "callers": [],
            "class": ClassSpec::default(), "time_zone": "UTC", "locale": "C.UTF-8",
            "recent_gaps_seconds": [10, 20], "opaque_learner": "3558b8a9ab039ac3",
        });
        let read: Assignment = serde_json::from_value(assignment).unwrap();
        assert_eq!(read.epoch, Epoch(7));
    }
}
