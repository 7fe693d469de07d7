//! The names of services, as in every cluster: CoreDNS at the address that kubelets tell pods.

use std::path::Path;

use carrel_cluster_tools::COREDNS;
use serde_json::{Value, json};

use super::{ControlPlane, image, programs};

const IMAGE: &str = "localhost/carrel/coredns:1";
const NAMESPACE: &str = "kube-system";
const CONFIG: &str = ".:53 {\n errors\n ready\n kubernetes cluster.local\n}\n";

/// Writes the image that nodes are to import before [`serve`].
pub(super) fn write_image(to: &Path) -> anyhow::Result<()> {
    image::write(
        to,
        IMAGE,
        &[("/coredns", &programs::path(&COREDNS, "coredns"))],
    )
}

/// Makes what answers, and waits until it does.
pub(super) fn serve(plane: &ControlPlane, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("names.json");
    let objects =
        json!({"apiVersion": "v1", "kind": "List", "items": objects(&plane.name_server())});
    std::fs::write(&file, objects.to_string())?;
    plane.kubectl(&["apply", "--filename", &file.display().to_string()])?;
    let words = [
        "rollout",
        "status",
        "deployment/coredns",
        "--namespace",
        NAMESPACE,
    ];
    plane.kubectl(&[words.as_slice(), &["--timeout=60s"]].concat())?;
    Ok(())
}

fn objects(address: &str) -> Vec<Value> {
    let named = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let labels = json!({"k8s-app": "kube-dns"});
    let reads = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let container = json!({
        "name": "coredns",
        "image": IMAGE,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    });
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("coredns")}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"},
            "rules": [
                reads("", &["endpoints", "services", "pods", "namespaces"]),
                reads("discovery.k8s.io", &["endpointslices"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
        }),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("coredns"), "data": {"Corefile": CONFIG}}),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named("coredns"),
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "coredns",
                "dnsPolicy": "Default",
                "containers": [container],
                "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
            }}},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": named("kube-dns"),
            "spec": {"selector": labels, "clusterIP": address, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ]},
        }),
    ]
}
