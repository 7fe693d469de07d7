//! What a turn may come to, and what is said of it.

use carrel_core::event::{EventBody, Reply};
use carrel_core::turn::{Death, FailureCode, TurnState};
use carrel_core::{Epoch, Generation, SnapshotId};

use super::standing::Standing;
use crate::turns::Failure;

/// What a turn came to.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It committed, or was stopped before it ran.
    Done {
        /// Whether it was stopped by a wish.
        stopped: bool,
        /// The reply.
        reply: &'a Reply,
        /// The committed snapshot, if it committed.
        snapshot: Option<&'a SnapshotId>,
        /// The head's generation afterwards.
        generation: Generation,
        /// What the operator should know, if anything.
        operator_note: &'a str,
    },
    /// It commits nothing.
    Failed(&'a Failure),
}

impl<'a> Outcome<'a> {
    /// A turn that waited ends by a wish: it commits nothing, and the head stays.
    pub fn stopped_waiting(reply: &'a Reply, head: Generation) -> Self {
        Self::Done {
            stopped: true,
            reply,
            snapshot: None,
            generation: head,
            operator_note: "",
        }
    }

    /// The state of the turn afterwards.
    pub fn state(&self) -> TurnState {
        match self {
            Self::Done { stopped: true, .. } => TurnState::Stopped,
            Self::Done { .. } => TurnState::Done,
            Self::Failed(_) => TurnState::Failed,
        }
    }

    /// The reply, if there is one.
    pub fn reply(&self) -> Option<&'a Reply> {
        match self {
            Self::Done { reply, .. } => Some(reply),
            Self::Failed(_) => None,
        }
    }

    /// The committed snapshot, if it committed.
    pub fn snapshot(&self) -> Option<&'a SnapshotId> {
        match self {
            Self::Done { snapshot, .. } => *snapshot,
            Self::Failed(_) => None,
        }
    }

    /// The failure, if it failed.
    pub fn failure(&self) -> Option<&'a Failure> {
        match self {
            Self::Done { .. } => None,
            Self::Failed(failure) => Some(failure),
        }
    }

    /// The event that says so.
    pub fn event(&self, standing: &Standing) -> EventBody {
        let turn_id = standing.turn.turn_id;
        match *self {
            Self::Done {
                stopped,
                reply,
                snapshot,
                generation,
                operator_note,
            } => EventBody::Done {
                turn_id,
                stopped,
                reply: reply.clone(),
                usage: standing.turn.usage,
                snapshot_id: snapshot.cloned(),
                generation,
                operator_note: operator_note.to_owned(),
            },
            Self::Failed(failure) => EventBody::Failed {
                turn_id,
                code: failure.code,
                detail: failure.detail.clone(),
                retryable: failure.retryable,
                partial_text: failure.partial_text.clone(),
                operator_reason: failure.operator_reason.clone(),
            },
        }
    }
}

/// A death under a turn, as its owner saw it.
#[derive(Debug, Clone, Copy)]
pub struct Died<'a> {
    /// The incarnation.
    pub epoch: Epoch,
    /// Who died.
    pub death: Death,
    /// What was seen, for people.
    pub reason: &'a str,
    /// What the agent had said.
    pub partial_text: &'a str,
}

impl Died<'_> {
    /// The event `restarted` of a turn.
    pub fn restarted(&self, standing: &Standing) -> EventBody {
        EventBody::Restarted {
            turn_id: standing.turn.turn_id,
            death: self.death,
            reason: self.reason.to_owned(),
        }
    }

    /// A turn begins in a newer incarnation and nobody said that the older one died.
    pub fn replaced(epoch: Epoch) -> Self {
        Self {
            epoch,
            death: Death::Infrastructure,
            reason: "a newer incarnation took its place",
            partial_text: "",
        }
    }

    /// The failure of a turn that is parked after this death.
    pub fn parked(&self) -> Failure {
        let (code, detail, retryable) = match self.death {
            Death::Agent => (
                FailureCode::AgentDied,
                "Sorry, your tutor broke down on this message several times. Please put it differently.",
                false,
            ),
            Death::Infrastructure => (
                FailureCode::Parked,
                "Sorry, this message could not be answered. Please send it again later.",
                true,
            ),
        };
        Failure {
            code,
            detail: detail.to_owned(),
            retryable,
            partial_text: self.partial_text.to_owned(),
            operator_reason: self.reason.to_owned(),
        }
    }
}

/// The failure of a turn whose learner is erased.
pub fn learner_closed() -> Failure {
    Failure {
        code: FailureCode::LearnerClosed,
        detail: "This learner is being erased.".to_owned(),
        retryable: false,
        partial_text: String::new(),
        operator_reason: "the learner is being erased".to_owned(),
    }
}
