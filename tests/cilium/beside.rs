//! Pods beside those of learners, and this machine.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::cluster::{Installation, Node};
use carrel_tests::eventually;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::learner::Doors;

/// Who belongs to a release.
pub(crate) const COMPONENTS: [&str; 4] = ["gateway", "controller", "router", "vault"];
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
    for component in COMPONENTS {
        let said = said_by(school, ELSEWHERE, component, &[&doors.sidecar])?;
        ensure!(
            said.trim().ends_with("timeout"),
            "a pod like the {component} elsewhere: {said}"
        );
    }
    ensure!(
        !is_reached(&doors.sidecar).await,
        "this machine reaches a learner's pod"
    );
    Ok(())
}

/// Each component goes where it has to, and nowhere else.
pub(crate) fn components_are_kept_in(school: &Installation, doors: &Doors) -> anyhow::Result<()> {
    let sidecar = (doors.sidecar.clone(), &["gateway", "controller"][..]);
    let doors: Vec<_> = doors.shut.iter().chain([&sidecar]).collect();
    let addresses: Vec<&str> = doors.iter().map(|(address, _)| address.as_str()).collect();
    for component in COMPONENTS {
        let said = said_by(school, Installation::NAMESPACE, component, &addresses)?;
        for (address, open_to) in &doors {
            let line = said
                .lines()
                .find(|line| line.starts_with(&format!("reach {address}: ")));
            let line = line.with_context(|| format!("nothing is said of {address} in {said}"))?;
            let is_as_it_shall_be = if open_to.contains(&component) {
                line.ends_with(": reached")
            } else {
                line.contains("timeout")
            };
            ensure!(is_as_it_shall_be, "a pod like the {component}: {line}");
        }
    }
    Ok(())
}

/// Whether this machine reaches an address.
pub(crate) async fn is_reached(address: &str) -> bool {
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// What a pod with a component's labels says of addresses.
fn said_by(
    school: &Installation,
    namespace: &str,
    component: &str,
    addresses: &[&str],
) -> anyhow::Result<String> {
    let name = format!("like-{component}");
    let labels = json!({
        "app.kubernetes.io/name": "carrel",
        "app.kubernetes.io/instance": "carrel",
        "app.kubernetes.io/component": component,
    });
    let words = [&["reach"], addresses].concat();
    make(school, namespace, &name, &labels, &words, false)?;
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

/// Without policies metadata service, API server and gateway are there for everybody.
pub(crate) async fn a_pod_that_policies_do_not_keep_in_takes_nobody(
    school: &Installation,
    doors: &Doors,
) -> anyhow::Result<()> {
    school.learner("carl", "patient").await?;
    school.api.post("carl", "hello", "hello").await?;
    eventually("the learner's condition says why", LONG, || async {
        let conditions = school.object("learner/carl")?["status"]["conditions"].take();
        let said = conditions.to_string();
        let is_told = doors.tried.iter().all(|address| said.contains(address));
        Ok((is_told && said.contains("network policies are not enforced")).then_some(()))
    })
    .await
}
