//! `Learner`: whom the pods are for, what is wanted of them, and what is seen.

#![expect(
    unreachable_pub,
    reason = "the schema's derive declares each struct a second time, inside a function"
)]

use carrel_core::Epoch;
use carrel_core::class::DEFAULT_CLASS;
use carrel_core::learner::{Desired, DesiredState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted of a learner.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "carrel.dev",
    version = "v1alpha1",
    kind = "Learner",
    plural = "learners",
    shortname = "lrn",
    category = "carrel",
    namespaced,
    status = "LearnerStatus",
    derive = "PartialEq",
    cel,
    doc = "One learner, with a pod of their own while they need it. Deleting it ends the pod and keeps all data; 'carrel learner rm' erases.",
    selectable = ".spec.className",
    selectable = ".spec.state",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the agent takes messages now"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Asleep, Waking, Restoring, Ready, Draining, Snapshotting, Failed or Deleting"),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.className"),
    printcolumn(name = "Last-Active", type_ = "date", json_path = ".status.lastActiveTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", priority = 1),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.snapshotId", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("the name must be a DNS label of at most 63 characters"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.wakeAfterEpoch) || !has(self.wakeAfterEpoch) || self.wakeAfterEpoch >= oldSelf.wakeAfterEpoch").message("wakeAfterEpoch must not be lowered"))]
pub struct LearnerSpec {
    /// The LearnerClass, in the same namespace. A change takes effect at the next wake.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[serde(default = "LearnerSpec::default_class")]
    pub class_name: String,
    /// What the operator wants: `Auto` is awake when asked and asleep when idle, `Running` is kept awake, `Asleep` is kept
    /// asleep while messages wait.
    #[serde(default)]
    pub state: Wanted,
    /// The epoch after which somebody wants a new incarnation: awake is wanted while this is not below status.epoch.
    /// Written by gateways when a message waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub wake_after_epoch: Option<i64>,
    /// An older state of the workspace to go back to, taken once, when the learner next sleeps: a wake waits for it. What came of
    /// it is in status.restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default)]
    pub restore: Option<Restore>,
}

/// What the operator wants of a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Wanted {
    /// Awake when asked, asleep when idle.
    #[default]
    Auto,
    /// Kept awake.
    Running,
    /// Kept asleep; messages wait.
    Asleep,
}

/// An older state of the workspace to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// A snapshot of this learner, 64 hexadecimal digits. To take the same once more, take it out first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub snapshot_id: Option<String>,
}

/// What is seen of a learner; written by the controller alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.epoch >= oldSelf.epoch").message("epoch must never fall: it fences older pods"))]
pub struct LearnerStatus {
    /// The newest incarnation's number; 0: never woken. It only rises.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub epoch: i64,
    /// The pod of the newest epoch, while it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[serde(default)]
    pub pod_name: Option<String>,
    /// The namespace of that pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[serde(default)]
    pub pod_namespace: Option<String>,
    /// Its uid: names are used again, this never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// Where its sidecar listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[serde(default)]
    pub pod_address: Option<String>,
    /// The node on which it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[serde(default)]
    pub node_name: Option<String>,
    /// How the newest incarnation began: `warm` by a pod that waited, `cold` by one that had to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[serde(default)]
    pub start_kind: Option<String>,
    /// How many incarnations in a row died before they committed anything.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub young_deaths: i32,
    /// Not before this time is another incarnation tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default)]
    pub retry_time: Option<Time>,
    /// When the learner was last seen to wake or to fall asleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default)]
    pub last_active_time: Option<Time>,
    /// The snapshot that the last incarnation left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// What came of spec.restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default)]
    pub restore: Option<RestoreStatus>,
    /// The generation of the spec that the status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub observed_generation: Option<i64>,
    /// What holds: `Ready` (its reason is the learner's state), `Assigned`, `Restored`, `Snapshotted`, `DataAtRisk`.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What came of the wish for an older state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// The snapshot that was asked for last.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub snapshot_id: String,
    /// Why it was not taken; empty: the learner goes on from there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// One condition, in the shape of `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its name.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Z][A-Za-z]*$"))]
    pub name: String,
    /// 'True', 'False' or 'Unknown'.
    #[schemars(regex(pattern = r"^(True|False|Unknown)$"), length(max = 7))]
    pub status: String,
    /// Why, in one word.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Z][A-Za-z]*$"))]
    pub reason: String,
    /// Why, in a sentence for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The generation of the spec that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Since when it has this status.
    pub last_transition_time: Time,
}

impl From<Wanted> for DesiredState {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Auto => Self::Auto,
            Wanted::Running => Self::Running,
            Wanted::Asleep => Self::Asleep,
        }
    }
}

impl LearnerSpec {
    fn default_class() -> String {
        DEFAULT_CLASS.to_owned()
    }
}

impl Learner {
    /// The wish for it. Deleting an object is no erasing: it ends the pod, and who sees that the object is gone does it.
    pub fn desired(&self) -> Desired {
        let after = self.spec.wake_after_epoch;
        Desired {
            state: self.spec.state.into(),
            wake_after_epoch: after.and_then(|epoch| u64::try_from(epoch).ok()).map(Epoch),
            deleting: false,
        }
    }
}

#[cfg(test)]
mod tests;
