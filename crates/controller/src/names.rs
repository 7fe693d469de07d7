//! What the controller calls things: events' reasons, and the numbers of its own.

use std::time::Duration;

use jiff::SignedDuration;

/// Events: the class of a learner is missing or cannot be used.
pub(crate) const CLASS_UNUSABLE: &str = "ClassUnusable";
/// Events: an incarnation died, or no pod could be made.
pub(crate) const POD_FAILED: &str = "PodFailed";
/// Events: nothing is tried any more without being asked for.
pub(crate) const GAVE_UP: &str = "GaveUp";
/// Events: an incarnation ended without its last snapshot.
pub(crate) const DATA_AT_RISK: &str = "DataAtRisk";
/// Events: an older state that is wanted is not taken.
pub(crate) const RESTORE_REFUSED: &str = "RestoreRefused";
/// Events: an older state that is wanted cannot be asked for.
pub(crate) const RESTORE_WAITS: &str = "RestoreWaits";

/// Events: no node takes the pod of a learner who waits.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
/// Events: the pod of a learner who waits runs, and takes nobody: it reaches what it must not, say.
pub(crate) const POD_NOT_READY: &str = "PodNotReady";
/// Events: no learner namespace takes a pod.
pub(crate) const NAMESPACES_FULL: &str = "NamespacesFull";

/// Events: blank pods of a class die, or are refused, again and again.
pub(crate) const POOL_POD_FAILED: &str = "PoolPodFailed";

/// How long a learner namespace that refused a pod for want of room is not asked again.
pub(crate) const FULL_FOR: SignedDuration = SignedDuration::from_secs(5);
/// How long after its grace period a pod that is being deleted counts as one whose node is gone.
pub(crate) const NODE_GONE: Duration = Duration::from_secs(10);
/// How long a sidecar may say nothing when its node has lost it, too.
pub(crate) const SILENT_AND_LOST: Duration = Duration::from_secs(10);
/// How long a pod may be labelled with a learner whose status names another before it is ended.
pub(crate) const STRANGE: Duration = Duration::from_secs(10);
