//! Pods beside those of learners, and this machine.

use std::time::Duration;

use anyhow::ensure;
use carrel_tests::cluster::{Installation, Node};
use carrel_tests::eventually;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::learner::Doors;

/// A namespace that is not ours.
pub(crate) const ELSEWHERE: &str = "elsewhere";
/// Where clouds tell a machine its secrets; every pod tries it at its start.
pub(crate) const METADATA: &str = "169.254.169.254:80";
/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(2);
/// Who is let in takes a connection by then.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A metadata service on the node, and a pod of a namespace without policies: everybody reaches them whom no policy keeps in.
pub(crate) fn open_what_policies_keep_shut(school: &Installation) -> anyhow::Result<()> {
    school.plane.kubectl(&["create", "namespace", ELSEWHERE])?;
    school.node.ip("address add 169.254.169.254/32 dev lo")?;
    let labels = json!({"app": "served"});
    make(
        school,
        ELSEWHERE,
        "served",
        &labels,
        &["serve", "8080"],
        false,
    )?;
    make(
        school,
        ELSEWHERE,
        "metadata",
        &json!({}),
        &["serve", "80"],
        true,
    )?;
    let namespace = format!("--namespace={ELSEWHERE}");
    school.plane.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/served",
        "pod/metadata",
        &namespace,
        "--timeout=60s",
    ])?;
    Ok(())
}

pub(crate) async fn a_learners_pod_is_reached_by_gateway_and_controller_alone(
    school: &Installation,
    doors: &Doors,
) -> anyhow::Result<()> {
    let components = ["gateway", "controller", "router", "vault"];
    let ours = components.map(|component| (Installation::NAMESPACE, component));
    let strangers = components.map(|component| (ELSEWHERE, component));
    for (namespace, component) in ours.into_iter().chain(strangers) {
        let is_let_in =
            namespace == Installation::NAMESPACE && matches!(component, "gateway" | "controller");
        let said = said_by(school, namespace, component, &doors.sidecar)?;
        let expected = if is_let_in { ": reached" } else { "timeout" };
        ensure!(
            said.trim().ends_with(expected),
            "a pod like the {component} in {namespace}: {said}"
        );
    }
    ensure!(
        !is_reached(&doors.sidecar).await,
        "this machine reaches a learner's pod"
    );
    Ok(())
}

/// Whether this machine reaches an address.
pub(crate) async fn is_reached(address: &str) -> bool {
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// What a pod with a component's labels says of an address.
fn said_by(
    school: &Installation,
    namespace: &str,
    component: &str,
    address: &str,
) -> anyhow::Result<String> {
    let name = format!("like-{component}");
    let labels = json!({
        "app.kubernetes.io/name": "carrel",
        "app.kubernetes.io/instance": "carrel",
        "app.kubernetes.io/component": component,
    });
    make(
        school,
        namespace,
        &name,
        &labels,
        &["reach", address],
        false,
    )?;
    let of = format!("--namespace={namespace}");
    school.plane.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        &format!("pod/{name}"),
        &of,
        "--timeout=60s",
    ])?;
    school.plane.kubectl(&["logs", &name, &of])
}

fn make(
    school: &Installation,
    namespace: &str,
    name: &str,
    labels: &Value,
    words: &[&str],
    is_of_host: bool,
) -> anyhow::Result<()> {
    school.apply_to(
        namespace,
        &json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "hostNetwork": is_of_host,
                "restartPolicy": "Never",
                "containers": [{"name": "inside", "image": Node::INSIDE, "args": words}],
            },
        }),
    )
}

/// Without policies the metadata service is there for everybody.
pub(crate) async fn a_pod_that_policies_do_not_keep_in_takes_nobody(
    school: &Installation,
) -> anyhow::Result<()> {
    school.learner("carl", "patient").await?;
    school.api.post("carl", "hello", "hello").await?;
    eventually("the learner's condition says why", LONG, || async {
        let conditions = school.object("learner/carl")?["status"]["conditions"].take();
        let said = conditions.to_string();
        Ok((said.contains(METADATA) && said.contains("network policies")).then_some(()))
    })
    .await
}
