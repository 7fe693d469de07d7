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
            let again = status.state == LearnerState::Failed && status.young_deaths < MOST_UNASKED;
            if is_asked(desired, status) || again {
                Wish::Awake
            } else {
                Wish::Asleep
            }
        }
    }
}

/// Whether somebody has asked for an incarnation after the newest.
pub(super) fn is_asked(desired: &Desired, status: &Status) -> bool {
    let after = desired.wake_after_epoch;
    after.is_some_and(|after| after >= status.epoch)
}

/// Whether only its document wants it awake, whose wish does not end, and it has failed as often as anybody may expect.
pub(super) fn is_kept_awake_in_vain(desired: &Desired, young_deaths: u32) -> bool {
    desired.state == DesiredState::Running && young_deaths >= MOST_UNASKED
}
