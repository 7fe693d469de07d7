//! What a fleet sees of one learner: the arguments of the plan.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, PodUid};
use crate::learner::{PodRef, StartKind, Status};

/// What is seen of one learner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The status as it is stored.
    pub status: Status,
    /// The highest epoch that has shown itself in the store or that a refusal named; 0 when unknown.
    pub fence: Epoch,
    /// The pod that the status names; when it names none, the pod made for the learner or offered to it.
    pub pod: PodSeen,
    /// The start budget and the live cap let this learner start; stays true until it is ready or has ended.
    pub admitted: bool,
    /// For want of what nobody gets a place now, for people; empty: for want of none.
    pub wanting: String,
    /// The live cap wants this learner asleep if it is quiet.
    pub make_room: bool,
    /// Its document or its class is not what it was when a pod was last tried for it, as far as is known.
    pub renewed: bool,
}

/// What is seen of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodSeen {
    /// There is none.
    None,
    /// It exists and its sidecar does not answer (yet, or any more).
    Starting {
        /// Which.
        pod: PodUid,
        /// Since when it is silent.
        since: Timestamp,
        /// What it waits for, for people; may be empty.
        detail: String,
    },
    /// It could not be made, or ended before it was blank and ready.
    Unborn {
        /// Which, if anything of it exists.
        pod: Option<PodUid>,
        /// When that was seen; the same failure shows the same time.
        time: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// It waits for an assignment.
    Blank {
        /// Which.
        pod: PodRef,
        /// Whether it waited in the pool or was made for this learner.
        start_kind: StartKind,
    },
    /// Its sidecar answered the assignment with a refusal: it is another's, or the assignment is too old.
    Refused {
        /// Which.
        pod: PodUid,
    },
    /// It took the assignment of the status's epoch and lives.
    Assigned {
        /// Which.
        pod: PodUid,
        /// Its phase as last heard.
        phase: Phase,
        /// Since when it is in that phase.
        since: Timestamp,
        /// Whether this incarnation has committed a turn or a snapshot.
        committed: bool,
        /// Whether it restored an older state because the head was proved damaged.
        fell_back: bool,
        /// What it waits for, for people; may be empty.
        detail: String,
    },
    /// It ended.
    Exited {
        /// Which.
        pod: PodUid,
        /// How.
        ending: Ending,
        /// Whether the incarnation had committed a turn or a snapshot.
        committed: bool,
        /// What was seen, for people.
        reason: String,
    },
}

/// What an assigned sidecar is doing.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// It restores the workspace and starts the agent.
    Restoring,
    /// The agent waits for a message.
    Ready,
    /// A turn runs, its commit included.
    Busy,
    /// It takes no new turn; the running one may finish.
    Draining,
    /// It takes the final snapshot.
    Snapshotting,
}

/// How a pod ended.
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
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Ending {
    /// By itself, with everything committed: the final snapshot, or nothing had changed.
    Slept,
    /// By itself, on purpose without a snapshot: a turn failed in it and its changes are discarded.
    Discarded,
    /// In any other way.
    Died,
}

impl PodSeen {
    /// The identity of the pod that is seen.
    pub fn uid(&self) -> Option<PodUid> {
        match self {
            Self::None => None,
            Self::Unborn { pod, .. } => *pod,
            Self::Blank { pod, .. } => Some(pod.uid),
            Self::Starting { pod, .. }
            | Self::Refused { pod }
            | Self::Assigned { pod, .. }
            | Self::Exited { pod, .. } => Some(*pod),
        }
    }
}
