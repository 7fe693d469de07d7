//! Real nodes.

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

/// By what everything that a node and its cluster make on this machine is known: the name of its control groups, and the beginning of
/// the cluster's addresses.
pub(crate) fn marks(node: &Node) -> [String; 2] {
    let groups = node.folder().file_name().unwrap_or_default();
    let octets: Vec<&str> = node.address.split('.').take(2).collect();
    [
        groups.to_string_lossy().into_owned(),
        format!("{}.", octets.join(".")),
    ]
}

/// What of this machine's addresses, routes and control groups has one of these marks.
pub(crate) fn made(marks: &[String]) -> Vec<String> {
    let groups = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let groups = groups.flat_map(|hierarchy| {
        std::fs::read_dir(hierarchy.path())
            .into_iter()
            .flatten()
            .flatten()
    });
    let mut all: Vec<String> = groups
        .map(|group| group.path().display().to_string())
        .collect();
    for words in [["-4", "address"], ["-4", "route"]] {
        let said = wait::output(Command::new("ip").args(words)).expect("ip runs");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        all.extend(said.lines().map(str::to_owned));
    }
    all.retain(|line| marks.iter().any(|mark| line.contains(mark)));
    all
}

async fn create(
    plane: &ControlPlane,
    node: &str,
    name: &str,
    words: &[&str],
) -> anyhow::Result<Api<Pod>> {
    let container = json!({"name": "inside", "image": Node::INSIDE, "args": words});
    let spec = json!({"nodeName": node, "containers": [container], "restartPolicy": "Never"});
    let pod: Value = json!({"metadata": {"name": name}, "spec": spec});
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    Ok(pods)
}

/// A pod of `node-0` that answers requests with its name: where.
pub(crate) async fn serve(plane: &ControlPlane, name: &str) -> anyhow::Result<String> {
    let pods = create(plane, "node-0", name, &["serve", "8080"]).await?;
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

/// Runs a pod to its end: its log.
async fn run(
    plane: &ControlPlane,
    node: &str,
    name: &str,
    words: &[&str],
) -> anyhow::Result<String> {
    let pods = create(plane, node, name, words).await?;
    eventually("the pod has succeeded", LONG, || async {
        let status = pods.get(name).await?.status.unwrap_or_default();
        Ok((status.phase.as_deref() == Some("Succeeded")).then_some(()))
    })
    .await?;
    plane.kubectl(&["logs", name])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_on_a_real_node_and_its_log_is_read() -> anyhow::Result<()> {
    let test = "a_pod_runs_on_a_real_node_and_its_log_is_read";
    let Some((plane, node)) = start(test).await? else {
        return Ok(());
    };
    let began = Instant::now();
    assert_eq!(
        run(&plane, &node.name, "ada", &["say", "good morning"]).await?,
        "good morning\n"
    );
    println!("{test}: the pod has run after {:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_side_by_side_have_pods_of_their_own_and_leave_nothing() -> anyhow::Result<()>
{
    let test = "two_clusters_side_by_side_have_pods_of_their_own_and_leave_nothing";
    let (first, second) = tokio::join!(start(test), start(test));
    let (Some((here, node)), Some((there, other))) = (first?, second?) else {
        return Ok(());
    };
    let neighbour = Node::start(test, &here, NodeOptions::default())
        .await?
        .expect("as its neighbour");
    assert_eq!(neighbour.name, "node-1");
    let (ada, bob) = tokio::try_join!(serve(&here, "ada"), serve(&there, "bob"))?;
    assert_eq!(reqwest::get(&ada).await?.text().await?, "ada\n");
    assert_eq!(reqwest::get(&bob).await?.text().await?, "bob\n");
    // From node to node of one cluster.
    assert_eq!(
        run(&here, "node-1", "carl", &["fetch", &ada]).await?,
        "200 ada\n"
    );
    let marks = [marks(&node), marks(&neighbour), marks(&other)].concat();
    assert!(!made(&marks).is_empty());
    drop((node, neighbour, other));
    drop((here, there));
    eventually("nothing is left", LONG, || async {
        Ok(made(&marks).is_empty().then_some(()))
    })
    .await
}
