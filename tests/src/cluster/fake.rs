//! Nodes that are only objects: KWOK says of them, and of pods on them, what a kubelet would.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// The annotation and taint by which fake nodes are known.
const FAKE: &str = "kwok.x-k8s.io/node";
/// Addresses of fake pods, others for each KWOK: one that begins anew does not know which are taken. All of them are this machine's own, so
/// that whoever listens here can answer for a pod.
pub(super) const ADDRESSES: [&str; 2] = ["127.128.0.0/10", "127.192.0.0/10"];
/// The processors of a fake node.
pub(super) const CPU: &str = "64";
/// Which nodes are KWOK's.
pub(super) const SELECTOR: &str = "kwok.x-k8s.io/node=fake";

/// A fake node with so many processors, and with room for a thousand pods.
pub(super) fn node(number: u32, cpu: &str, tainted: bool) -> anyhow::Result<Node> {
    let name = format!("fake-{number}");
    let room = json!({"cpu": cpu, "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"});
    let taint = json!({"key": FAKE, "value": "fake", "effect": "NoSchedule"});
    let taints: Vec<Value> = tainted.then_some(taint).into_iter().collect();
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "annotations": {FAKE: "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {"taints": taints},
        "status": {"capacity": room, "allocatable": room},
    }))?)
}

/// How a pod asks for a fake node, also one that others keep away from.
pub fn placement() -> Value {
    json!({
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": FAKE, "operator": "Exists", "effect": "NoSchedule"}],
    })
}
