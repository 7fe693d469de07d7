//! Names that others may rely on: group, labels, field managers, the kinds of Carrel's pods.

/// The group of our kinds.
pub const GROUP: &str = "carrel.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// The class that a pod was made for.
pub const CLASS: &str = "carrel.dev/class";
/// The hash of the template that a pod was made of; another hash, another kind of pod.
pub const CLASS_HASH: &str = "carrel.dev/class-hash";
/// Whose a pod is. One without this label is blank: nobody's yet.
pub const LEARNER: &str = "carrel.dev/learner";
/// The epoch of the incarnation that a pod is.
pub const EPOCH: &str = "carrel.dev/epoch";

/// Says that an object is Carrel's (`app.kubernetes.io/part-of`).
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "carrel");
/// Says that a pod is for a learner (`app.kubernetes.io/component`).
pub const COMPONENT: (&str, &str) = ("app.kubernetes.io/component", "learner");

/// Writes status, and pods.
pub const CONTROLLER: &str = "carrel-controller";
/// Writes `spec.wakeAfterEpoch`.
pub const GATEWAY: &str = "carrel-gateway";
/// Writes the other fields of a spec for operators who use Carrel's own tools.
pub const ADMIN: &str = "carrel-admin";

/// The container of a pod that is Carrel's.
pub const SIDECAR: &str = "sidecar";
/// The container of a pod in which the agent runs.
pub const AGENT: &str = "agent";
