//! What a plan says: the status to write, the effects to perform, when to look again.

use jiff::Timestamp;

use super::names;
use crate::id::{Epoch, PodUid};
use crate::learner::{self, LearnerState, PodRef, Status};

/// What to do with one learner now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The status from now on.
    pub status: Status,
    /// Whether it has to be stored before anything else is done.
    pub write: Write,
    /// What to do, in order, after the status is stored. Each may be repeated without harm.
    pub effects: Vec<Effect>,
    /// When to look again though nothing is seen to change; `None` only at rest.
    pub requeue_at: Option<Timestamp>,
    /// The conditions of which there is news; the status has them already, beside those that stay as they are.
    pub news: Vec<News>,
}

/// Whether a plan's status has to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    /// It is the stored one.
    Nothing,
    /// Only what is shown to people differs; a fleet whose writes are scarce may leave it.
    May,
    /// By compare-and-set, before any effect of this plan.
    Must,
}

/// One thing to do. Its fields are what makes a repetition harmless.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Choose a blank pod of the pool, or make one; from then on the learner is seen with a pod.
    CreatePod {
        /// The epoch that it is meant for.
        epoch: Epoch,
    },
    /// Send the signed assignment. Epoch and pod are stored already.
    Assign {
        /// The epoch.
        epoch: Epoch,
        /// The pod.
        pod: PodRef,
    },
    /// Ask the sidecar to drain, take the final snapshot and exit.
    AskToSleep {
        /// Which.
        pod: PodUid,
        /// Why.
        reason: SleepReason,
    },
    /// End it at once.
    KillPod {
        /// Which.
        pod: PodUid,
        /// Why.
        reason: KillReason,
    },
    /// It is not wanted and has taken no assignment of ours: remove it unless it has taken one meanwhile, or another's.
    LetGo {
        /// Which.
        pod: PodUid,
    },
    /// Remove what an ended pod left.
    DeletePod {
        /// Which.
        pod: PodUid,
    },
    /// No pod is left: key, objects and rows may go.
    FinishErase,
}

/// Why a learner is asked to sleep.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SleepReason {
    /// The operator wants it asleep.
    Wished,
    /// Others need its place and it was quiet longest.
    MakeRoom,
    /// The incarnation has been awake as long as one may.
    AwakeTooLong,
}

/// Why a pod is ended from outside.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[strum(serialize_all = "snake_case")]
pub enum KillReason {
    /// The learner is being erased.
    Erased,
    /// The operator wants it asleep and nothing runs in it yet.
    NotWanted,
    /// No status names it: an incarnation that was replaced.
    Unnamed,
    /// It did not answer in time.
    Silent,
    /// It did not take the assignment in time.
    AssignOverdue,
    /// Restoring and starting the agent took too long.
    RestoreOverdue,
    /// A turn took longer than turn and commit may.
    TurnOverdue,
    /// It did not drain in time.
    DrainOverdue,
    /// The final snapshot took too long.
    SnapshotOverdue,
}

impl KillReason {
    /// Whether something that was not committed may be lost by it.
    pub fn risks_data(self, state: LearnerState) -> bool {
        match self {
            Self::Erased
            | Self::NotWanted
            | Self::Unnamed
            | Self::AssignOverdue
            | Self::RestoreOverdue => false,
            Self::Silent => names::was_ready(state),
            Self::TurnOverdue | Self::DrainOverdue | Self::SnapshotOverdue => true,
        }
    }
}

/// What is said of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Its name, one of those in [`names`].
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word: a constant of [`names`].
    pub reason: &'static str,
    /// A sentence for people; may be empty.
    pub message: String,
}

impl Plan {
    /// The plan that moves the stored status to this one and does nothing else.
    pub(super) fn to(stored: &Status, status: Status) -> Self {
        Self {
            write: write(stored, &status),
            status,
            effects: Vec::new(),
            requeue_at: None,
            news: Vec::new(),
        }
    }

    pub(super) fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Looks again at that time, or before if that was said already.
    pub(super) fn again_at(mut self, time: Timestamp) -> Self {
        self.requeue_at = Some(self.requeue_at.map_or(time, |before| before.min(time)));
        self
    }

    pub(super) fn says(self, name: &'static str, holds: bool, reason: &'static str) -> Self {
        let message = self.status.detail.clone();
        self.tells(name, holds, reason, message)
    }

    pub(super) fn tells(
        mut self,
        name: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        self.news.push(News {
            name,
            holds,
            reason,
            message: message.into(),
        });
        self
    }

    /// Puts the news into the status. It is stored with what must be stored anyway, and costs no write of its own.
    pub(super) fn with_news_in_status(mut self, now: Timestamp) -> Self {
        for news in &self.news {
            if note(&mut self.status.conditions, news, now) && self.write == Write::Nothing {
                self.write = Write::May;
            }
        }
        self
    }
}

/// Notes news of a condition; whether it changed anything.
fn note(conditions: &mut Vec<learner::Condition>, news: &News, now: Timestamp) -> bool {
    let known = conditions.iter().position(|known| known.name == news.name);
    let status = news.holds.into();
    let since = known.map(|place| &conditions[place]);
    let since = since.filter(|known| known.status == status);
    let condition = learner::Condition {
        name: news.name.to_owned(),
        status,
        reason: news.reason.to_owned(),
        message: news.message.clone(),
        last_transition_time: since.map_or(now, |known| known.last_transition_time),
    };
    match known {
        Some(place) if conditions[place] == condition => return false,
        Some(place) => conditions[place] = condition,
        None => conditions.push(condition),
    }
    true
}

/// The status in a state, with the time of its beginning.
pub(super) fn moved(
    status: &Status,
    state: LearnerState,
    detail: impl Into<String>,
    now: Timestamp,
) -> Status {
    Status {
        state,
        since: status.since.filter(|_| status.state == state).or(Some(now)),
        detail: detail.into(),
        ..status.clone()
    }
}

/// What a restarted fleet must know is stored; the steps in between are for people.
fn write(stored: &Status, next: &Status) -> Write {
    if stored == next {
        return Write::Nothing;
    }
    let same_facts = stored.epoch == next.epoch
        && stored.pod == next.pod
        && stored.young_deaths == next.young_deaths
        && stored.retry_time == next.retry_time;
    let is_shown_only = match next.state {
        same if same == stored.state => true,
        LearnerState::Waking | LearnerState::Restoring => stored.state != LearnerState::Failed,
        LearnerState::Ready => stored.state == LearnerState::Busy,
        LearnerState::Busy => stored.state == LearnerState::Ready,
        LearnerState::Draining | LearnerState::Snapshotting => names::was_ready(stored.state),
        LearnerState::Asleep | LearnerState::Failed | LearnerState::Deleting => false,
    };
    if same_facts && is_shown_only {
        Write::May
    } else {
        Write::Must
    }
}
