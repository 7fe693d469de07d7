//! Where a turn stands for those who change it, and who may.

use carrel_core::turn::TurnState;
use carrel_core::{Epoch, EventVersion, LearnerId};
use jiff::Timestamp;

use crate::turns::{Lease, OwnerWrite, Timing, Turn};

/// A turn that a writing transaction holds still.
#[derive(Debug)]
pub struct Standing {
    /// Its place in the order of acceptance.
    pub place: i64,
    /// The channel its message came by.
    pub channel: String,
    /// When it was first claimed, or put back since.
    pub claimed_time: Option<Timestamp>,
    /// The version of its newest event `started`.
    pub started_version: EventVersion,
    /// Who owns it.
    pub lease: Option<Lease>,
    /// The turn as it stands.
    pub turn: Turn,
}

impl Standing {
    /// The learner.
    pub fn learner(&self) -> &LearnerId {
        &self.turn.learner
    }

    /// Why an owner with this lease may not write; `None` when it may.
    pub fn refusal<T>(&self, lease: Lease) -> Option<OwnerWrite<T>> {
        if self.turn.state.is_ended() {
            Some(OwnerWrite::Ended)
        } else if self.lease != Some(lease) {
            Some(OwnerWrite::NotOwner)
        } else {
            None
        }
    }

    /// Whether the turn runs in this incarnation.
    pub fn runs_in(&self, epoch: Epoch) -> bool {
        self.turn.state == TurnState::Running && self.turn.epoch == Some(epoch)
    }

    /// The timing of the caller with the parts that are the store's.
    pub fn timing(&self, given: Timing) -> Timing {
        Timing {
            queue: self.turn.timing.queue,
            wake: self.turn.timing.wake,
            ..given
        }
    }
}

/// Whole milliseconds from one time to a later one.
pub fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or_default()
}
