//! Names of conditions and their reasons: one list, for people, scripts and metrics.

use crate::learner::LearnerState;

/// The agent takes messages; its reason is the learner's state in one word.
pub const READY: &str = "Ready";
/// A pod took the newest epoch's assignment.
pub const ASSIGNED: &str = "Assigned";
/// The workspace was restored.
pub const RESTORED: &str = "Restored";
/// Everything of the last incarnation is committed.
pub const SNAPSHOTTED: &str = "Snapshotted";
/// Something that was not committed may be lost, or was.
pub const DATA_AT_RISK: &str = "DataAtRisk";

/// All conditions.
pub const CONDITIONS: [&str; 5] = [READY, ASSIGNED, RESTORED, SNAPSHOTTED, DATA_AT_RISK];

/// What is said of a learner that its document keeps asleep.
pub const KEPT_ASLEEP: &str = "its document keeps it asleep; messages wait";

/// `Assigned`: the sidecar took it.
pub const TAKEN: &str = "Taken";
/// `Assigned`: it was sent and not answered yet.
pub const SENT: &str = "Sent";
/// `Assigned`: the sidecar refused it; another pod and a new epoch follow.
pub const REFUSED: &str = "Refused";
/// `Assigned`: no pod is there.
pub const NO_POD: &str = "NoPod";
/// `Assigned`: no pod could be made so often that it is not tried any more without being asked for; the newest epoch was
/// given up.
pub const GIVEN_UP: &str = "GivenUp";
/// `Restored`: from the head.
pub const FROM_HEAD: &str = "FromHead";
/// `Restored`: the head was proved damaged and an older state took its place.
pub const FELL_BACK: &str = "FellBack";
/// `Restored`: not yet; the message says what it waits for.
pub const IN_PROGRESS: &str = "InProgress";
/// `Snapshotted`, `DataAtRisk`: everything is committed.
pub const SAVED: &str = "Saved";
/// `Snapshotted`: what a failed turn changed was discarded on purpose.
pub const DISCARDED: &str = "Discarded";
/// `Snapshotted`, `DataAtRisk`: the pod ended without its final snapshot.
pub const DIED_UNSAVED: &str = "DiedUnsaved";
/// `DataAtRisk`: the pod is ended without its final snapshot because its deadline has passed.
pub const DEADLINE_PASSED: &str = "DeadlinePassed";

/// Whether an incarnation in this state had been ready.
pub(crate) fn was_ready(state: LearnerState) -> bool {
    match state {
        LearnerState::Ready
        | LearnerState::Busy
        | LearnerState::Draining
        | LearnerState::Snapshotting => true,
        LearnerState::Asleep
        | LearnerState::Waking
        | LearnerState::Restoring
        | LearnerState::Failed
        | LearnerState::Deleting => false,
    }
}
