//! How long each state may last.

use std::time::Duration;

use jiff::Timestamp;

use crate::class::ClassSpec;

/// From a pod's making until its sidecar answers, the pull of a large image over a slow line included.
pub const START: Duration = Duration::from_mins(30);
/// For a sidecar that had answered to answer again.
pub const SILENT: Duration = Duration::from_mins(5);
/// From the stored epoch until the sidecar has taken it; an assignment is worth nothing after 60 s.
pub const ASSIGN: Duration = Duration::from_secs(30);
/// For restoring a workspace, before the agent's own time to start.
pub const RESTORE: Duration = Duration::from_mins(10);
/// For one snapshot and its commit.
pub const SNAPSHOT: Duration = Duration::from_mins(5);
/// The longest life of one incarnation; its token lives four hours longer.
pub const MAX_AWAKE: Duration = Duration::from_hours(20);
/// Between looks at a learner that waits for a place.
pub const ADMISSION: Duration = Duration::from_secs(30);
/// Between attempts to end a pod, to remove what is left of it, or to erase.
pub const RETRY: Duration = Duration::from_secs(5);

/// How long each state of a learner may last, by its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Until a pod's sidecar answers.
    pub start: Duration,
    /// Until one that had answered does again.
    pub silent: Duration,
    /// Until it has taken the assignment.
    pub assign: Duration,
    /// Until the workspace is restored and the agent ready.
    pub restore: Duration,
    /// One turn with its commit.
    pub turn: Duration,
    /// From the word to sleep until the final snapshot begins.
    pub drain: Duration,
    /// The final snapshot with its commit.
    pub snapshot: Duration,
    /// One incarnation's life.
    pub max_awake: Duration,
    /// Between looks at a learner that waits for a place.
    pub admission: Duration,
    /// Between attempts to end, to remove, to erase.
    pub retry: Duration,
}

impl Policy {
    /// The policy of a class.
    pub fn of(class: &ClassSpec) -> Self {
        let agent_start = Duration::from_secs(class.agent.start_seconds.into());
        let turn = Duration::from_secs(class.turn.timeout_seconds.into()) + SNAPSHOT;
        let awake = Duration::from_secs(class.idle.max_awake_seconds.into());
        Self {
            start: START,
            silent: SILENT,
            assign: ASSIGN,
            restore: RESTORE + agent_start,
            turn,
            drain: turn,
            snapshot: SNAPSHOT,
            max_awake: awake.min(MAX_AWAKE),
            admission: ADMISSION,
            retry: RETRY,
        }
    }
}

/// A time and a span later; the end of time when there is no later.
pub(super) fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
