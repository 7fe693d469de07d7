//! Tests of the real Kubernetes that other tests use: it comes up, counts what is written, comes back, and leaves nothing.

#![expect(
    clippy::print_stdout,
    reason = "how long clusters take is printed, and told to whoever kills them"
)]

mod chart;
mod controller;
mod gateways;
mod gone;
mod install;
mod nodes;
mod operator;
mod plane;
mod rules;
mod sidecars;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::cluster::{Chart, ControlPlane, Options, placement};
use carrel_tests::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(1);

/// A control plane with fake nodes; how long it took is printed.
async fn start(test: &str, options: Options) -> anyhow::Result<Option<ControlPlane>> {
    let began = Instant::now();
    let plane = ControlPlane::start(test, options).await?;
    if plane.is_some() {
        println!(
            "{test}: the control plane takes pods after {:?}",
            began.elapsed()
        );
    }
    Ok(plane)
}

/// The same for the chart.
async fn start_chart(test: &str, fake_nodes: u32) -> anyhow::Result<Option<Chart>> {
    let began = Instant::now();
    let chart = Chart::start(test, fake_nodes).await?;
    if chart.is_some() {
        println!(
            "{test}: the control plane is ready for the chart after {:?}",
            began.elapsed()
        );
    }
    Ok(chart)
}

/// What the first page tells to apply.
fn told_by_the_first_page() -> anyhow::Result<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let page = std::fs::read_to_string(page)?;
    let (_, told) = page
        .split_once("apply -f - <<EOF\n")
        .context("it is told")?;
    let (told, _) = told.split_once("\nEOF\n").context("it ends")?;
    Ok(told.to_owned())
}

fn one_fake_node() -> Options {
    Options {
        fake_nodes: 1,
        ..Options::default()
    }
}

/// A pod of a sidecar and an agent for a fake node.
fn pod(name: &str) -> anyhow::Result<Pod> {
    let mut spec = placement();
    let containers = ["sidecar", "agent"].map(|name| json!({"name": name, "image": "nothing"}));
    spec["containers"] = containers.to_vec().into();
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": spec}),
    )?)
}

/// Makes a pod in the default namespace and waits until it is ready.
async fn make(plane: &ControlPlane, name: &str) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    pods.create(&PostParams::default(), &pod(name)?).await?;
    eventually("the pod is ready", LONG, || async {
        Ok(pods.get_opt(name).await?.filter(is_ready))
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn labels() -> Value {
    json!({"part": "test"})
}
