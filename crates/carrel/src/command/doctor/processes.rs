//! Whether nodes bound the processes of a pod: a class's `resources.pids` holds on one machine alone, for pods have no such field.

use std::time::Duration;

use futures::future::join_all;
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::up::Found;

/// How many nodes are asked: those of a pool are alike.
const NODES: usize = 10;
/// How long one may take.
const ANSWER: Duration = Duration::from_secs(3);

/// What kubelets say of themselves, where the user may ask them.
pub(super) async fn look(cluster: &Cluster) -> Found {
    let unknown = "whether nodes bound them is not to be seen: podPidsLimit of the kubelets' configuration does";
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let Ok(nodes) = nodes.list(&ListParams::default()).await else {
        return Found::Notice(unknown.to_owned());
    };
    let (mut unbound, mut bounds) = (Vec::new(), Vec::new());
    let names = nodes.iter().take(NODES).map(ResourceExt::name_any);
    let asked = names.map(async |name| (timeout(ANSWER, bound(cluster, &name)).await, name));
    for (bound, name) in join_all(asked).await {
        match bound {
            Ok(Some(bound)) if bound > 0 => bounds.push(bound),
            Ok(Some(_)) => unbound.push(name),
            // One that does not answer says nothing of the others.
            Ok(None) | Err(_) => {}
        }
    }
    match (bounds.iter().min(), unbound.is_empty()) {
        (Some(least), true) => Found::Good(format!("a pod has {least} at most, by its node")),
        (None, true) => Found::Notice(unknown.to_owned()),
        (_, false) => Found::Notice(format!(
            "nothing bounds those of a pod on {}: set podPidsLimit in the kubelet's configuration, or one agent can take all of a node's",
            unbound.join(", ")
        )),
    }
}

/// A kubelet's `podPidsLimit`, which is negative where there is none.
async fn bound(cluster: &Cluster, node: &str) -> Option<i64> {
    let path = format!("/api/v1/nodes/{node}/proxy/configz");
    let request = Request::get(path).body(Vec::new()).ok()?;
    let said: Value = cluster.client.request(request).await.ok()?;
    said["kubeletconfig"]["podPidsLimit"].as_i64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::script::{cluster, forbidden, list};

    const LISTED: &str = "/api/v1/nodes?";

    fn two() -> Value {
        list(&["a", "b"].map(|name| json!({"metadata": {"name": name}})))
    }

    fn says(limit: i64) -> Value {
        json!({"kubeletconfig": {"podPidsLimit": limit}})
    }

    #[tokio::test]
    async fn the_least_of_what_nodes_give_a_pod_is_said_and_who_gives_all() {
        let [a, b] = ["/api/v1/nodes/a/proxy/", "/api/v1/nodes/b/proxy/"];
        let answers = |of_b: i64| {
            vec![
                ("GET", a, 200, says(4096)),
                ("GET", b, 200, says(of_b)),
                ("GET", LISTED, 200, two()),
            ]
        };
        let found = look(&cluster(answers(1024)).0).await;
        assert!(matches!(found, Found::Good(what) if what.contains("1024")));
        let found = look(&cluster(answers(-1)).0).await;
        assert!(matches!(found, Found::Notice(what) if what.contains("on b:")));
    }

    #[tokio::test]
    async fn what_may_not_be_asked_is_a_note() {
        for answers in [
            vec![("GET", LISTED, 403, forbidden())],
            vec![("GET", LISTED, 200, two())],
        ] {
            let found = look(&cluster(answers).0).await;
            assert!(matches!(found, Found::Notice(what) if what.contains("podPidsLimit")));
        }
    }
}
