//! Real nodes.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use carrel_tests::cluster::{ControlPlane, Node, NodeOptions, Options};
use carrel_tests::{eventually, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::{LONG, is_ready};

/// A control plane with a real node; how long both took is printed.
pub(crate) async fn start(test: &str) -> anyhow::Result<Option<(ControlPlane, Node)>> {
    let options = Options {
        reachable: true,
        ..Options::default()
    };
    let Some(plane) = crate::start(test, options).await? else {
        return Ok(None);
    };
    let began = Instant::now();
    let Some(node) = Node::start(test, &plane, NodeOptions::default()).await? else {
        return Ok(None);
    };
    println!("{test}: the node is ready after {:?}", began.elapsed());
    Ok(Some((plane, node)))
}

/// The bridges, ports, control groups and routes of clusters of tests on this machine.
pub(crate) fn made() -> BTreeSet<String> {
    let folders = [
        "/sys/class/net",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cpuset",
        "/sys/fs/cgroup/systemd",
    ];
    let entries = folders
        .into_iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.path().display().to_string());
    let routes = wait::output(Command::new("ip").arg("route")).expect("ip runs");
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    let all = names.chain(routes.lines().map(str::to_owned));
    all.filter(|name| name.contains("carrel")).collect()
}

async fn create(plane: &ControlPlane, name: &str, words: &[&str]) -> anyhow::Result<Api<Pod>> {
    let container = json!({"name": "inside", "image": Node::INSIDE, "args": words});
    let spec = json!({"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1});
    let pod: Value = json!({"metadata": {"name": name}, "spec": spec});
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    Ok(pods)
}

/// A pod that answers requests with its name: where.
pub(crate) async fn serve(plane: &ControlPlane, name: &str) -> anyhow::Result<String> {
    let pods = create(plane, name, &["serve", "8080"]).await?;
    let pod = eventually("the pod is ready", LONG, || async {
        Ok(pods.get_opt(name).await?.filter(is_ready))
    })
    .await?;
    let address = pod.status.unwrap_or_default().pod_ip.unwrap_or_default();
    let url = format!("http://{address}:8080");
    eventually("the pod answers", LONG, || async {
        Ok(reqwest::get(&url).await.ok())
    })
    .await?;
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_on_a_real_node_and_its_log_is_read() -> anyhow::Result<()> {
    let test = "a_pod_runs_on_a_real_node_and_its_log_is_read";
    let Some((plane, _node)) = start(test).await? else {
        return Ok(());
    };
    let began = Instant::now();
    let pods = create(&plane, "ada", &["say", "good morning"]).await?;
    eventually("the pod has succeeded", LONG, || async {
        let status = pods.get("ada").await?.status.unwrap_or_default();
        Ok((status.phase.as_deref() == Some("Succeeded")).then_some(()))
    })
    .await?;
    println!("{test}: the pod has ended after {:?}", began.elapsed());
    assert_eq!(plane.kubectl(&["logs", "ada"])?, "good morning\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_side_by_side_have_pods_of_their_own_and_leave_nothing() -> anyhow::Result<()>
{
    let test = "two_clusters_side_by_side_have_pods_of_their_own_and_leave_nothing";
    let before = made();
    let (first, second) = tokio::join!(start(test), start(test));
    let (Some((here, node)), Some((there, other))) = (first?, second?) else {
        return Ok(());
    };
    let second_node = Node::start(test, &here, NodeOptions::default()).await?;
    assert_eq!(second_node.map(|node| node.name).as_deref(), Some("node-1"));
    let (ada, bob) = tokio::try_join!(serve(&here, "ada"), serve(&there, "bob"))?;
    assert_eq!(reqwest::get(&ada).await?.text().await?, "ada\n");
    assert_eq!(reqwest::get(&bob).await?.text().await?, "bob\n");
    drop((node, other));
    drop((here, there));
    eventually("nothing is left", LONG, || async {
        Ok((made() == before).then_some(()))
    })
    .await
}
