//! A learner as it should be and as it is seen: what both fleets read and write.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, PodUid};
use crate::lifecycle::names;

/// What the operator wants of a learner.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
pub enum DesiredState {
    /// Awake when asked, asleep when idle.
    #[default]
    Auto,
    /// Kept awake.
    Running,
    /// Kept asleep; messages wait.
    Asleep,
}

/// The wish for one learner: the part of its document that its owner and the gateway write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// The operator's wish.
    pub state: DesiredState,
    /// A wake names the epoch after which it wants a new one: awake is wanted while this is not below the epoch.
    pub wake_after_epoch: Option<Epoch>,
    /// The learner is being erased.
    pub deleting: bool,
}

/// Where a learner is in its life; the reason of the condition `Ready`, one word.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
pub enum LearnerState {
    /// No pod, and nothing that runs.
    #[default]
    Asleep,
    /// A pod is chosen or created and told whose it is.
    Waking,
    /// The workspace is restored and the agent started.
    Restoring,
    /// The agent waits for a message.
    Ready,
    /// A turn runs.
    Busy,
    /// No new turn is taken; the running one may finish.
    Draining,
    /// The final snapshot is taken.
    Snapshotting,
    /// The last incarnation died young or could not start; tried again after a while.
    Failed,
    /// The learner is being erased.
    Deleting,
}

/// How an incarnation began.
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
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum StartKind {
    /// It was awake already.
    Live,
    /// A blank pod waited for it.
    Warm,
    /// A pod had to be made.
    Cold,
}

/// The pod of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Its name, as an operator sees it.
    pub name: String,
    /// Its identity; a name may be used again, this never.
    pub uid: PodUid,
    /// Where its sidecar listens: `unix:/path` or `http://host:port`.
    pub address: String,
}

/// What is known of a learner's incarnation: the part of its document that the fleet writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The newest epoch; 0: never woken.
    pub epoch: Epoch,
    /// Where the learner is.
    pub state: LearnerState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why it is there or what it waits for, in a sentence for people; may be empty.
    pub detail: String,
    /// The pod of the newest epoch while it lives.
    pub pod: Option<PodRef>,
    /// How the newest epoch began.
    pub start_kind: Option<StartKind>,
    /// How many incarnations in a row died before they committed.
    pub young_deaths: u32,
    /// Not before this is another incarnation tried.
    pub retry_time: Option<Timestamp>,
    /// What holds of it besides its state, at most one of each name; `Ready` is not among them, it follows from the state.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Whether a condition holds, as Kubernetes writes it.
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
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
}

/// One condition of a learner, in the shape of Kubernetes (API conventions, "Typical status properties").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its name, one of those in [`crate::lifecycle::names`].
    #[serde(rename = "type")]
    pub name: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence for people; may be empty.
    pub message: String,
    /// Since when it holds, or does not.
    pub last_transition_time: Timestamp,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Status {
    /// What is known of a condition.
    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.name == name)
    }

    /// Every condition, for people: `Ready`, which the state says since `since` (or since `made`), and the others.
    pub fn all_conditions(&self, made: Timestamp) -> Vec<Condition> {
        let ready = Condition {
            name: names::READY.to_owned(),
            status: matches!(self.state, LearnerState::Ready | LearnerState::Busy).into(),
            reason: self.state.to_string(),
            message: self.detail.clone(),
            last_transition_time: self.since.unwrap_or(made),
        };
        let others = self.conditions.iter().cloned();
        std::iter::once(ready).chain(others).collect()
    }
}
