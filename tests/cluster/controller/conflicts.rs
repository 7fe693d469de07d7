//! Others who write between our reading and our writing, answers that are lost, strangers' edits, and two who both think that they lead.

use std::collections::BTreeSet;

use carrel_tests::cluster::school::{CONTROLLER, SOON, School, names};
use carrel_tests::cluster::{Asked, Fate};
use carrel_tests::eventually;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{pool_of, school};

fn is_status(asked: &Asked) -> bool {
    asked.is(&Method::PUT, "/status")
}

async fn patch_status(school: &School, name: &str, status: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"status": status}));
    let learners = school.learners();
    learners
        .patch_status(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn api_of(school: &School, pod: &Pod) -> Api<Pod> {
    Api::namespaced(school.plane.client(), &pod.namespace().unwrap_or_default())
}

async fn label(school: &School, pod: &Pod, labels: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    let pods = api_of(school, pod);
    pods.patch(&pod.name_any(), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_wrote_first_stands_and_is_gone_on_from() -> anyhow::Result<()> {
    let test = "what_somebody_else_wrote_first_stands_and_is_gone_on_from";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(1)).await?;
    school.resting("ada", "free").await?;
    school.pool(1).await?;
    let mut stop = proxy.stop(is_status);
    school.wake("ada", 0).await?;
    let first = stop.next().await;
    patch_status(&school, "ada", json!({"epoch": 40})).await?;
    school.wake("ada", 40).await?;
    first.goes(Fate::Passes);
    drop(stop);
    school
        .status("ada", "awake", |status| status.is_ready(41))
        .await?;
    let came = school.stand_in.assignments();
    let epochs: Vec<u64> = came.iter().map(|came| came.epoch).collect();
    assert_eq!(epochs, [41], "nothing was sent before it was written");
    let metrics = controller.metrics().await?;
    let conflicts = r#"carrel_reconcile_duration_seconds_count{result="conflict"}"#;
    assert!(metrics.contains(conflicts), "{metrics}");
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_found_and_gone_on_from() -> anyhow::Result<()> {
    let test = "a_write_whose_answer_is_lost_is_found_and_gone_on_from";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("free", &pool_of(0)).await?;
    school.resting("ada", "free").await?;
    let mut stop = proxy.stop(Asked::writes);
    school.wake("ada", 0).await?;
    // The pod, the first status, the label, and the status that says that she is ready: each is done, and none is heard of at first.
    let mut heard = BTreeSet::new();
    let ready = school.status("ada", "awake", |status| status.is_ready(1));
    let mut ready = std::pin::pin!(ready);
    let ready = loop {
        tokio::select! {
            ready = &mut ready => break ready?,
            held = stop.next() => {
                let place = held.asked.path.rsplit('/').next().unwrap_or_default();
                let kind = if place == "status" { "status" } else { held.asked.method.as_str() };
                if heard.insert(kind.to_owned()) {
                    held.is_done_unanswered().await;
                } else {
                    held.goes(Fate::Passes);
                }
            }
        }
    };
    drop(stop);
    assert!(heard.is_superset(&["POST", "status"].map(str::to_owned).into()));
    eventually("she has one pod, and nobody another", SOON, || async {
        let pods = school.pods("").await?;
        Ok((names(&pods) == [ready.pod()]).then_some(()))
    })
    .await?;
    let came = school.stand_in.assignments();
    let taken: BTreeSet<_> = came.iter().map(|came| (&came.uid, came.epoch)).collect();
    assert_eq!(taken.len(), 1, "{came:?}");
    let metrics = controller.metrics().await?;
    for result in ["ok", "requeue", "error"] {
        let count = format!("carrel_reconcile_duration_seconds_count{{result=\"{result}\"}}");
        assert!(metrics.contains(&count), "{result}: {metrics}");
    }
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_do_to_pods_and_statuses_is_mended() -> anyhow::Result<()> {
    let test = "what_strangers_do_to_pods_and_statuses_is_mended";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(1)).await?;
    for name in ["ada", "bob", "cyd"] {
        school.learner(name, "free").await?;
        school.wake(name, 0).await?;
        let up = school.status(name, "awake", |status| status.is_ready(1));
        up.await?;
    }
    let theirs = |name: &'static str| {
        let school = &school;
        async move {
            let pods = school.pods(&format!("carrel.dev/learner={name}")).await?;
            pods.into_iter()
                .next()
                .ok_or(anyhow::anyhow!("{name} has no pod"))
        }
    };
    let (ada, bob, cyd) = (
        theirs("ada").await?,
        theirs("bob").await?,
        theirs("cyd").await?,
    );
    let blank = school.pool(1).await?.remove(0);

    // A pod is deleted, another loses its label, a status its pod; and a blank one is said to be hers.
    let deleted = DeleteParams::default();
    api_of(&school, &ada)
        .delete(&ada.name_any(), &deleted)
        .await?;
    label(&school, &bob, json!({"carrel.dev/learner": null})).await?;
    let nothing =
        json!({"podName": null, "podNamespace": null, "podUid": null, "podAddress": null});
    patch_status(&school, "cyd", nothing).await?;
    label(
        &school,
        &blank,
        json!({"carrel.dev/learner": "bob", "carrel.dev/epoch": "1"}),
    )
    .await?;

    for name in ["ada", "cyd"] {
        school.wake(name, 1).await?;
        let up = school.status(name, "awake again", |status| status.is_ready(2));
        up.await?;
    }
    let still = school.status("bob", "still awake", |status| status.is_ready(1));
    let mut named = vec![still.await?.pod().to_owned()];
    assert_eq!(named, [bob.name_any()], "his status names his pod");
    for name in ["ada", "cyd"] {
        let status = school.status(name, "awake", |status| status.is_ready(2));
        named.push(status.await?.pod().to_owned());
    }
    named.sort();
    eventually(
        "nobody has two pods, and the pool is full",
        SOON,
        || async {
            let pods = school.pods("").await?;
            let mut names = names(&pods);
            names.retain(|name| !named.contains(name));
            let strange = [ada.name_any(), cyd.name_any(), blank.name_any()];
            let is_well = names.len() == 1 && !strange.contains(&names[0]);
            Ok((pods.len() == 4 && is_well).then_some(()))
        },
    )
    .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deposed_leader_still_had_under_way_comes_to_nothing() -> anyhow::Result<()> {
    let test = "what_a_deposed_leader_still_had_under_way_comes_to_nothing";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let old = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("warm", &pool_of(1)).await?;
    school.class("cold", &pool_of(0)).await?;
    for (name, class) in [("ada", "warm"), ("bob", "cold")] {
        school.resting(name, class).await?;
    }
    school.pool(1).await?;
    // Ada's pod is about to be named, and bob's to be made.
    let mut names_pod = proxy.stop(is_status);
    let mut makes_pod = proxy.stop(|asked| asked.is(&Method::POST, "/pods"));
    school.wake("ada", 0).await?;
    let named = names_pod.next().await;
    school.wake("bob", 0).await?;
    let made = makes_pod.next().await;
    old.pause(true)?;
    school.free_lease().await?;
    let new = school.controller().await?;
    let mut pods = Vec::new();
    for name in ["ada", "bob"] {
        let up = school.status(name, "awake by the new leader", |status| status.is_ready(1));
        pods.push(up.await?.pod().to_owned());
    }
    let mark = school.plane.mark().await?;
    named.is_done_unanswered().await;
    made.is_done_unanswered().await;
    let late: Vec<_> = school.plane.writes_since(mark).await?;
    let late = late
        .iter()
        .filter(|write| write.user == CONTROLLER && write.resource == "learners/status");
    let codes: Vec<u64> = late.map(|write| write.code).collect();
    assert_eq!(codes, [409], "the old leader's word came too late");
    old.pause(false)?;
    eventually("the old leader ends", SOON, || async {
        Ok(old.log()?.contains("the lease").then_some(()))
    })
    .await?;
    for (name, pod) in ["ada", "bob"].into_iter().zip(&pods) {
        let still = school.status(name, "as before", |status| status.is_ready(1));
        assert_eq!(still.await?.pod(), pod);
    }
    let told = school.stand_in.assignments();
    assert_eq!(told.len(), 2, "one each: {told:?}");
    eventually("the pod that came late is gone", SOON, || async {
        let blank = school.pods("!carrel.dev/learner").await?;
        Ok((blank.len() == 1).then_some(()))
    })
    .await?;
    drop(old);
    new.stop()
}
