//! What is wanted of a learner that has no incarnation.

use crate::learner::{Desired, DesiredState, LearnerState, Status};

/// After so many deaths in a row nobody is woken again without being asked for; and after so many pods in a row that could
/// not be made, what was asked for is given up.
pub const MOST_UNASKED: u32 = 5;

/// What is wanted of a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    /// A new incarnation.
    Awake,
    /// None.
    Asleep,
    /// That it is gone.
    Erased,
}

/// What is wanted of a learner whose newest epoch has ended. A wake names an epoch: it is wanted while the newest is not
/// above that. An incarnation that died before it was ready (state `Failed`) is wanted again without being asked for, but
/// not for ever: one that never can start must cost nothing in the end, and who still waits for it asks anew. (A pod that can
/// never be made raises no epoch by itself; the plan spends one in the end, and with it the wish.)
pub fn wish(desired: &Desired, status: &Status) -> Wish {
    if desired.deleting {
        return Wish::Erased;
    }
    match desired.state {
        DesiredState::Asleep => Wish::Asleep,
        DesiredState::Running => Wish::Awake,
        DesiredState::Auto => {
            let asked = desired
                .wake_after_epoch
                .is_some_and(|after| after >= status.epoch);
            let again = status.state == LearnerState::Failed && status.young_deaths < MOST_UNASKED;
            if asked || again {
                Wish::Awake
            } else {
                Wish::Asleep
            }
        }
    }
}
