use serde_json::{Value, json};

use super::*;
use crate::cluster::script::{cluster, forbidden, pod};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/school/leases/carrel-controller";
const SECRET: &str = "/api/v1/namespaces/school/secrets/their-keys";

fn pods(all: &[Value]) -> Vec<Pod> {
    all.iter()
        .map(|one| serde_json::from_value(one.clone()).expect("a pod"))
        .collect()
}

fn lease_of(holder: &str, renewed: jiff::Timestamp) -> Value {
    json!({"metadata": {"name": "carrel-controller"}, "spec": {
        "holderIdentity": holder, "renewTime": renewed.to_string(), "leaseDurationSeconds": 15,
    }})
}

#[tokio::test]
async fn a_part_that_does_not_run_is_named_with_its_reason() {
    let (cluster, _) = cluster(vec![]);
    let mut vault = pod("blue", "vault", "v-1", false);
    vault["status"]["containerStatuses"] = json!([{
        "name": "vault", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}},
    }]);
    let mut router = pod("blue", "router", "r-1", false);
    router["status"]["conditions"] = json!([
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"},
    ]);
    let gateway = pod("blue", "gateway", "g-1", true);
    let all = pods(&[gateway, router, vault]);
    let found = look(&cluster, &all).await;
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["gateway", "router", "vault", "controller"]);
    let said: Vec<_> = found
        .into_iter()
        .map(|(_, found)| match found {
            Found::Good(what) | Found::Notice(what) => format!("ok {what}"),
            Found::Bad { what, next } => format!("{what} | {next}"),
        })
        .collect();
    assert_eq!(said[0], "ok 1 of 1 pods ready");
    assert_eq!(
        said[1],
        "0 of 1 pods ready; r-1: 0/3 nodes are available | kubectl --context far -n school describe pod r-1"
    );
    assert!(
        said[2].starts_with("0 of 1 pods ready; v-1: ImagePullBackOff |"),
        "{}",
        said[2]
    );
    assert!(
        said[3].starts_with("none of its pods is there |"),
        "{}",
        said[3]
    );
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_a_failure() {
    let long = now() - jiff::SignedDuration::from_mins(4);
    for (answer, is_good, told) in [
        (
            lease_of("carrel-controller-7f_0a1b", now()),
            true,
            "carrel-controller-7f leads",
        ),
        (
            lease_of("carrel-controller-7f_0a1b", long),
            false,
            "has not renewed it for 4m",
        ),
        (lease_of("", now()), false, "no controller leads now"),
    ] {
        let (cluster, _) = cluster(vec![("GET", LEASES, 200, answer)]);
        let (said, good) = match lease(&cluster).await {
            Found::Good(said) => (said, true),
            Found::Bad { what, .. } => (what, false),
            Found::Notice(what) => unreachable!("{what}"),
        };
        assert_eq!(good, is_good, "{said}");
        assert!(said.contains(told), "{said}");
    }
    let (none, _) = cluster(vec![]);
    assert!(matches!(lease(&none).await, Found::Bad { .. }));
    let (hidden, _) = cluster(vec![("GET", LEASES, 403, forbidden())]);
    assert!(matches!(lease(&hidden).await, Found::Notice(_)));
}

#[tokio::test]
async fn keys_are_counted_by_name_and_never_shown() {
    let all = pods(&[pod("blue", "gateway", "g-1", true)]);
    let secret = |data: Value| json!({"metadata": {"name": "their-keys"}, "data": data});
    let whole = secret(json!({"adminToken": "c2VjcmV0", "gateway.key": "c2VjcmV0"}));
    let (complete, _) = cluster(vec![("GET", SECRET, 200, whole)]);
    let found = keys(&complete, &all).await;
    assert!(
        matches!(found, Found::Good(what) if what == "their-keys hold all that the pods have mounted")
    );
    let half = secret(json!({"adminToken": "c2VjcmV0"}));
    let (incomplete, _) = cluster(vec![("GET", SECRET, 200, half)]);
    let found = keys(&incomplete, &all).await;
    assert!(
        matches!(found, Found::Bad { what, .. } if what == "Secret 'their-keys' lacks gateway.key")
    );
    let (none, _) = cluster(vec![]);
    let found = keys(&none, &all).await;
    assert!(
        matches!(found, Found::Bad { next, .. } if next.starts_with("carrel keys create --secret their-keys | kubectl"))
    );
    let (hidden, _) = cluster(vec![("GET", SECRET, 403, forbidden())]);
    assert!(matches!(keys(&hidden, &all).await, Found::Notice(_)));
}
