//! The part of the configuration that is about a cluster: its objects, and what pods are made of.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where learners' pods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum FleetKind {
    /// On the machine of a `carrel fleet`.
    #[default]
    Local,
    /// In a cluster, made by `carrel controller`.
    Kubernetes,
}

/// The objects and pods of a cluster. The way to its API server is the pod's service account, else `KUBECONFIG` and its
/// current context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Kubernetes {
    /// Of `Learner` and `LearnerClass` objects; empty: the pod's own, else the context's.
    pub(crate) namespace: String,
    /// Where pods are made.
    pub(crate) learner_namespaces: Vec<String>,
    /// The most pods in one of them.
    pub(crate) pods_per_namespace: u32,
    /// Carrel's own image, for pods.
    pub(crate) image: String,
    pub(crate) image_pull_policy: String,
    /// Names of Secrets in the learner namespaces.
    pub(crate) image_pull_secrets: Vec<String>,
    /// Where sidecars listen.
    pub(crate) sidecar_port: u16,
    /// What every pod tries before it is ready, and must not reach, as `HOST:PORT`, whose address the controller looks up; empty: no self-test.
    pub(crate) must_not_reach: Vec<String>,
    /// How long a pod that is ended may take.
    pub(crate) grace_seconds: u32,
    pub(crate) priority_class: String,
    /// As a pod's spec has them.
    pub(crate) node_selector: Value,
    pub(crate) tolerations: Vec<Value>,
    pub(crate) topology_spread_constraints: Vec<Value>,
    /// Incarnations that may be starting at once.
    pub(crate) starting_at_once: u32,
    /// Pods that a second may bring the pools.
    pub(crate) refills_per_second: u32,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            learner_namespaces: Vec::new(),
            pods_per_namespace: 2500,
            image: String::new(),
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            sidecar_port: 7080,
            must_not_reach: Vec::new(),
            grace_seconds: 60,
            priority_class: String::new(),
            node_selector: Value::Object(serde_json::Map::new()),
            tolerations: Vec::new(),
            topology_spread_constraints: Vec::new(),
            starting_at_once: 100,
            refills_per_second: 50,
        }
    }
}
