//! Nodes that are drained and nodes that die: their learners live on elsewhere, in the next epoch.

use std::time::{Duration, Instant};

use carrel_protocol::sidecar::Phase;
use carrel_tests::cluster::school::{SOON, School};
use carrel_tests::cluster::{End, Script};
use carrel_tests::eventually;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{pool_of, school};

/// So many learners, on three nodes.
const LEARNERS: usize = 12;

async fn awake(school: &School) -> anyhow::Result<Vec<(String, String, String)>> {
    let mut up = Vec::new();
    for number in 0..LEARNERS {
        let name = format!("l{number}");
        school.learner(&name, "free").await?;
        school.wake(&name, 0).await?;
        let status = school.status(&name, "awake", |status| status.is_ready(1));
        let status = status.await?;
        let pods = school.pods(&format!("carrel.dev/learner={name}")).await?;
        let node = pods[0]
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone());
        up.push((name, status.pod().to_owned(), node.unwrap_or_default()));
    }
    Ok(up)
}

/// Those of one node are elsewhere in the next epoch when they are asked for, and nobody else has moved.
async fn moved(school: &School, up: &[(String, String, String)], node: &str) -> anyhow::Result<()> {
    let asked = up.iter().filter(|(_, _, on)| on == node);
    for (name, _, _) in asked {
        school.wake(name, 1).await?;
    }
    for (name, pod, on) in up {
        if on != node {
            let still = school.status(name, "as before", |status| status.is_ready(1));
            assert_eq!(still.await?.pod(), pod);
            continue;
        }
        let next = school.status(name, "awake elsewhere", |status| {
            status.epoch() > 1 && status.condition("Ready").0 == "True"
        });
        let next = next.await?;
        let pods = school.pods(&format!("carrel.dev/learner={name}")).await?;
        let pods = pods
            .iter()
            .filter(|pod| pod.metadata.name.as_deref() == Some(next.pod()));
        let nodes: Vec<_> = pods
            .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
            .collect();
        assert!(nodes.len() == 1 && nodes[0] != node, "{name}: {nodes:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_node_is_drained_is_awake_elsewhere_when_somebody_asks() -> anyhow::Result<()> {
    let test = "whose_node_is_drained_is_awake_elsewhere_when_somebody_asks";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(3)).await?;
    let up = awake(&school).await?;
    let node = &up[0].2;
    school.plane.kubectl(&[
        "drain",
        node,
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=60s",
    ])?;
    moved(&school, &up, node).await?;
    school.pool(3).await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_node_is_dead_is_awake_elsewhere_when_somebody_asks() -> anyhow::Result<()> {
    let test = "whose_node_is_dead_is_awake_elsewhere_when_somebody_asks";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    let up = awake(&school).await?;
    let node = up[0].2.clone();
    for (name, _, _) in up.iter().filter(|(_, _, on)| *on == node) {
        school.stand_in.silence(name);
    }
    school.dies(&node).await?;
    moved(&school, &up, &node).await?;
    // The pods of a node of which nothing is heard stay until somebody says that it is gone; they are told to go.
    eventually("what is left of them is told to go", SOON, || async {
        let pods = school.pods("carrel.dev/epoch=1").await?;
        let on = |pod: &&Pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.node_name.as_deref()) == Some(node.as_str())
        };
        let mut left = pods.iter().filter(on);
        let goes = left.all(|pod| pod.metadata.deletion_timestamp.is_some());
        Ok(goes.then_some(()))
    })
    .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_young_again_and_again_is_tried_ever_more_seldom() -> anyhow::Result<()> {
    let test = "who_dies_young_again_and_again_is_tried_ever_more_seldom";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(1)).await?;
    school.learner("ada", "free").await?;
    let restores = Script {
        phase: Phase::Restoring,
        ..Script::default()
    };
    school.stand_in.play("ada", restores);
    school.wake("ada", 0).await?;
    // Dead at 0, tried again after 0, 1 and 2 s; an object has whole seconds, so each may be one shorter.
    let mut deaths: Vec<Instant> = Vec::new();
    for number in 0..4 {
        let came = eventually("the next is told", SOON, || async {
            Ok(school.stand_in.assignments().get(number).cloned())
        });
        let came = came.await?;
        if let Some(death) = deaths.last() {
            let pause = came.at.duration_since(*death);
            let least = Duration::from_secs(number as u64).saturating_sub(Duration::from_secs(2));
            assert!(pause >= least, "the {number}. after {pause:?}");
        }
        if number == 3 {
            school.stand_in.play("ada", Script::default());
            school.stand_in.report(&came.pod, Phase::Ready, "").await?;
            break;
        }
        deaths.push(Instant::now());
        school.stand_in.end(&came.pod, &End::killed()).await?;
    }
    let up = school.status("ada", "awake", |status| status.is_ready(4));
    assert_eq!(up.await?.0["youngDeaths"], 3);
    controller.stop()
}
