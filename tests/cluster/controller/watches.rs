//! Watches that break, fall silent or are too old: what happened meanwhile is seen, and nothing is decided from what is not.

use carrel_tests::cluster::school::{Controller, SOON, School};
use carrel_tests::cluster::{Fate, tally};
use carrel_tests::eventually;
use http::{Method, StatusCode};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{pool_of, school};

/// What shows a controller what there is.
const SEEN: [&str; 3] = ["/learners", "/learnerclasses", "/pods"];

async fn says(controller: &Controller, path: &str, words: &str) -> anyhow::Result<()> {
    eventually(words, SOON, || async {
        let said = controller.health(path).await?;
        Ok(said.contains(words).then_some(()))
    })
    .await
}

async fn awake(school: &School, name: &str) -> anyhow::Result<()> {
    school.learner(name, "free").await?;
    school.wake(name, 0).await?;
    let up = school.status(name, "awake", |status| status.is_ready(1));
    up.await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_blind_says_so_and_what_happened_meanwhile_is_seen_afterwards()
-> anyhow::Result<()> {
    let test = "whoever_is_blind_says_so_and_what_happened_meanwhile_is_seen_afterwards";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob"] {
        awake(&school, name).await?;
    }
    let ada = school.status("ada", "awake", |status| status.is_ready(1));
    let ada = ada.await?;
    says(&controller, "readyz", "ready").await?;
    let blind = proxy.rule(
        |asked| SEEN.iter().any(|end| asked.is(&Method::GET, end)),
        Fate::Refused(StatusCode::FORBIDDEN),
    );
    proxy.cut_watches();
    for what in [
        "learners (",
        "classes (",
        "pods in learners-0 (",
        "pods in learners-1 (",
    ] {
        says(&controller, "readyz", what).await?;
    }
    school.remove("bob").await?;
    school.learner("cyd", "free").await?;
    school.wake("cyd", 0).await?;
    says(&controller, "metrics", "carrel_leader 1").await?;
    assert_eq!(school.pods("carrel.dev/learner=bob").await?.len(), 1);
    drop(blind);
    let up = school.status("cyd", "awake", |status| status.is_ready(1));
    up.await?;
    eventually("bob's pod is gone", SOON, || async {
        let left = school.pods("carrel.dev/learner=bob").await?;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    let still = school.status("ada", "still awake", |status| status.is_ready(1));
    assert_eq!(still.await?.pod(), ada.pod());
    eventually("it says that it sees", SOON, || async {
        Ok((controller.health("readyz").await? == "ready\n").then_some(()))
    })
    .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_watch_is_too_old_at_once_lists_are_enough() -> anyhow::Result<()> {
    let test = "where_every_watch_is_too_old_at_once_lists_are_enough";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let _expired = proxy.rule(|asked| asked.is_watch, Fate::Expired);
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(0)).await?;
    awake(&school, "ada").await?;
    school.remove("ada").await?;
    eventually("her pod is gone", SOON, || async {
        Ok(school.pods("").await?.is_empty().then_some(()))
    })
    .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_stay_open_and_say_nothing_are_given_up() -> anyhow::Result<()> {
    let test = "watches_that_stay_open_and_say_nothing_are_given_up";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(0)).await?;
    awake(&school, "ada").await?;
    proxy.silence_watches();
    awake(&school, "bob").await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_not_ended_because_the_watch_has_not_shown_its_learner_yet() -> anyhow::Result<()>
{
    let test = "a_pod_is_not_ended_because_the_watch_has_not_shown_its_learner_yet";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    school.class("free", &pool_of(1)).await?;
    // The list is shown, and nothing after it.
    let held = proxy.stop(|asked| asked.is_watch && asked.path.ends_with("/learners"));
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    let pod = school.pool(1).await?.remove(0);
    let mark = school.plane.mark().await?;
    school.learner("ada", "free").await?;
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let port = school.stand_in.port();
    let status = json!({"status": {
        "epoch": 1, "podName": name, "podNamespace": namespace, "podUid": pod.uid(),
        "podAddress": format!("http://{}:{port}", address.unwrap_or_default()),
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    let params = PatchParams::default();
    let learners = school.learners();
    learners
        .patch_status("ada", &params, &Patch::Merge(status))
        .await?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(school.plane.client(), &namespace);
    let labels =
        json!({"metadata": {"labels": {"carrel.dev/learner": "ada", "carrel.dev/epoch": "1"}}});
    pods.patch(&name, &params, &Patch::Merge(labels)).await?;
    eventually("the learner was asked for", SOON, || async {
        let pod = pods.get_opt(&name).await?;
        let stays = pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
        anyhow::ensure!(stays, "the pod was ended: {}", controller.log()?);
        let metrics = controller.metrics().await?;
        let knows = metrics.contains(r#"carrel_learners{state="Ready",class="free"} 1"#);
        Ok(knows.then_some(()))
    })
    .await?;
    let ours = tally(
        &school.plane.writes_since(mark).await?,
        carrel_tests::cluster::school::CONTROLLER,
    );
    assert_eq!(ours.get("delete pods"), None, "{ours:?}");
    drop(held);
    controller.stop()
}
