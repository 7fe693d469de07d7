//! Against a scripted API server.

use carrel_telemetry::Readiness;
use http::Response;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::shared::tests::{Parts, server};
use crate::world::pod::Life;
use crate::world::pods::tests::pod;

/// A pod as the API server shows it.
fn shown(pod: &SeenPod) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod.name, "namespace": pod.namespace, "uid": pod.uid.to_string(),
            "resourceVersion": "20", "creationTimestamp": "2026-07-09T10:00:00Z",
            "labels": {names::CLASS_HASH: pod.hash},
        },
        "spec": {"containers": []}, "status": {"phase": "Pending"},
    })
}

#[tokio::test]
async fn a_list_drops_the_pods_that_were_known_before_it_and_not_those_that_were_made_meanwhile() {
    let parts = Parts::new(1, 1);
    let shared = &parts.shared;
    let pods = [1, 2, 3].map(|number| pod(number, 10, Life::Starting));
    let [stays, goes, made] = &pods;
    for known in [stays, goes] {
        shared.world().pods.put(known.clone());
    }
    let (client, mut server) = server();
    let namespace = stays.namespace.clone();
    let sight = Sight::new(Readiness::default(), [pods_in(&namespace)]);
    let watches = super::pods(Handle::clone(shared), client, namespace, sight.clone());
    let script = async {
        let (_, answer) = server.next_request().await.expect("a list");
        // It was written down before this one was made.
        shared.world().pods.put(made.clone());
        let list = json!({
            "apiVersion": "v1", "kind": "PodList",
            "metadata": {"resourceVersion": "30"}, "items": [shown(stays)],
        });
        let body = Body::from(list.to_string().into_bytes());
        answer.send_response(Response::new(body));
        sight.complete().await;
    };
    tokio::select! {
        () = watches => unreachable!("it never returns"),
        () = script => {}
    }
    let there = pods
        .each_ref()
        .map(|pod| shared.world().pods.get(pod.uid).is_some());
    assert_eq!(there, [true, false, true]);
}
