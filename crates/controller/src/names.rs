//! What the controller calls things: events' reasons, and the numbers of its own.

use std::time::Duration;

use jiff::SignedDuration;
use strum::IntoStaticStr;

/// Why an event is written; each has a line in docs/operations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[cfg_attr(test, derive(strum::EnumIter))]
pub(crate) enum Reason {
    /// The class of a learner is missing or cannot be used.
    ClassUnusable,
    /// An incarnation died, or no pod could be made.
    PodFailed,
    /// Nothing is tried any more without being asked for.
    GaveUp,
    /// An incarnation ended without its last snapshot.
    DataAtRisk,
    /// An older state that is wanted is not taken.
    RestoreRefused,
    /// An older state that is wanted cannot be asked for.
    RestoreWaits,
    /// No node takes the pod of a learner who waits.
    Unschedulable,
    /// The pod of a learner who waits runs, and takes nobody: it reaches what it must not, say.
    PodNotReady,
    /// No learner namespace takes a pod.
    NamespacesFull,
    /// Blank pods of a class die, or are refused, again and again.
    PoolPodFailed,
}

/// How long a learner namespace that refused a pod for want of room is not asked again.
pub(crate) const FULL_FOR: SignedDuration = SignedDuration::from_secs(5);
/// How long after its grace period a pod that is being deleted counts as one whose node is gone.
pub(crate) const NODE_GONE: Duration = Duration::from_secs(10);
/// How long a sidecar may say nothing when its node has lost it, too.
pub(crate) const SILENT_AND_LOST: Duration = Duration::from_secs(10);
/// How long a pod may be labelled with a learner whose status names another before it is ended.
pub(crate) const STRANGE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn each_reason_of_an_event_has_its_line_in_the_operators_documentation() {
        let page = include_str!("../../../docs/operations.md");
        let (_, section) = page.split_once("\n## Events\n").expect("a section of them");
        let section = section.split("\n## ").next().unwrap_or_default();
        let lines = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<&str> = lines
            .filter_map(|line| Some(line.split_once('`')?.0))
            .collect();
        let written: BTreeSet<&str> = Reason::iter().map(Into::into).collect();
        assert_eq!(documented, written);
    }
}
