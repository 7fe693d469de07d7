//! Where there is no room: namespaces with a quota, and pods that no node takes. Whoever waits says why.

use anyhow::bail;
use carrel_tests::cluster::school::{LEARNER_NAMESPACES, SOON, School, names};
use carrel_tests::eventually;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use super::{pool_of, school};

/// Lets so many pods into a namespace.
async fn quota(school: &School, namespace: &str, pods: u32) -> anyhow::Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(school.plane.client(), namespace);
    let quota = serde_json::from_value(
        json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": pods.to_string()}}}),
    )?;
    quotas.create(&PostParams::default(), &quota).await?;
    eventually("the quota is in force", SOON, || async {
        let status = quotas.get("few").await?.status;
        Ok(status.and_then(|status| status.hard).map(drop))
    })
    .await
}

async fn waits(school: &School, name: &str, why: &str) -> anyhow::Result<()> {
    let explained = school.status(name, "explained", |status| {
        status.condition("Ready") == ("False", "Waking") && status.message("Ready").contains(why)
    });
    let status = explained.await?;
    assert_eq!(status.0["youngDeaths"], 0, "to wait is no failure");
    Ok(())
}

async fn event(school: &School, reason: &str, why: &str) -> anyhow::Result<()> {
    eventually(reason, SOON, || async {
        let said = school.events(reason).await?;
        Ok(said.iter().any(|note| note.contains(why)).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_namespace_is_left_for_another_and_where_all_are_full_a_learner_waits_and_says_why()
-> anyhow::Result<()> {
    let test =
        "a_full_namespace_is_left_for_another_and_where_all_are_full_a_learner_waits_and_says_why";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    let [first, second] = LEARNER_NAMESPACES;
    quota(&school, first, 0).await?;
    quota(&school, second, 2).await?;
    for name in ["ada", "bob", "cyd"] {
        school.learner(name, "free").await?;
    }
    for name in ["ada", "bob"] {
        school.wake(name, 0).await?;
        let up = school.status(name, "awake", |status| status.is_ready(1));
        assert_eq!(up.await?.0["podNamespace"], second);
    }
    school.wake("cyd", 0).await?;
    waits(
        &school,
        "cyd",
        "the learner namespaces are full: exceeded quota",
    )
    .await?;
    event(&school, "NamespacesFull", "exceeded quota").await?;
    // Whoever sleeps makes room.
    school.remove("bob").await?;
    let up = school.status("cyd", "awake", |status| status.is_ready(1));
    assert_eq!(up.await?.0["podNamespace"], second);
    let quotas: Api<ResourceQuota> = Api::namespaced(school.plane.client(), first);
    quotas.delete("few", &DeleteParams::default()).await?;
    school.learner("dan", "free").await?;
    school.wake("dan", 0).await?;
    let up = school.status("dan", "awake", |status| status.is_ready(1));
    assert_eq!(up.await?.0["podNamespace"], first);
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_whose_pod_no_node_takes_says_so_and_holds_up_nobody() -> anyhow::Result<()> {
    let test = "a_learner_whose_pod_no_node_takes_says_so_and_holds_up_nobody";
    let one_by_one = json!({"kubernetes": {"startingAtOnce": 1}});
    let Some(school) = school(test, &one_by_one).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    // As much as a node has, and its sidecar wants some, too.
    let mut vast = pool_of(0);
    vast["resources"] = json!({"cpu": "64"});
    school.class("vast", &vast).await?;
    school.learner("ada", "vast").await?;
    school.wake("ada", 0).await?;
    waits(&school, "ada", "Insufficient cpu").await?;
    event(&school, "Unschedulable", "Insufficient cpu").await?;
    school.class("free", &pool_of(0)).await?;
    school.learner("bob", "free").await?;
    school.wake("bob", 0).await?;
    let up = school.status("bob", "awake", |status| status.is_ready(1));
    up.await?;
    school.remove("bob").await?;
    eventually("bob's pod is gone", SOON, || async {
        Ok((school.pods("carrel.dev/learner").await?.is_empty()).then_some(()))
    })
    .await?;
    // A pod that is gone without a word was one try, and is followed by another.
    let [first] = &names(&school.pods("").await?)[..] else {
        bail!("she has one pod");
    };
    let of = |namespace| format!("--namespace={namespace}");
    for namespace in LEARNER_NAMESPACES.map(of) {
        let all = ["delete", "pods", "--all", "--force", &namespace];
        school.plane.kubectl(&all)?;
    }
    eventually("another pod is made", SOON, || async {
        let pods = names(&school.pods("").await?);
        Ok((pods.len() == 1 && pods[0] != *first).then_some(()))
    })
    .await?;
    let tried = school.status("ada", "a status", |_| true).await?;
    assert_eq!(tried.0["youngDeaths"], 1);
    // A node comes that takes it.
    school.plane.fake_node(7, "128").await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    controller.stop()
}
