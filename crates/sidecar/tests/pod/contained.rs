//! The shim as the first process of its own pid and network namespace, as it is in a container.

use carrel_testkit::until;
use std::fs;

use carrel_core::class::ClassSpec;
use carrel_protocol::sidecar::Frame;
use rustix::process::Signal;
use tokio::process::Command;

use crate::pod::{PROGRAM, Pod, command, kill, skip, talkative, wait};

const UNSHARE: [&str; 6] = [
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--net",
    "/bin/sh",
];

/// A ready pod whose shim and agent are in namespaces of their own; `None` where these cannot be made.
async fn contained(test: &str, class: ClassSpec) -> Option<Pod> {
    let raised = "ip link set lo up";
    let possible = Command::new("unshare")
        .args(UNSHARE)
        .args(["-c", raised])
        .status()
        .await;
    if !possible.is_ok_and(|status| status.success()) {
        let reason = "no namespaces can be made here (they need root, unshare and ip)";
        skip(test, "oci", reason);
        return None;
    }
    let pod = Pod::blank_beside(class, |socket| {
        let mut shim = Command::new("unshare");
        let script = format!("{raised} && exec {PROGRAM} shim --socket {socket}");
        shim.args(UNSHARE).args(["-c", &script]);
        shim
    })
    .await;
    Some(pod.waked().await)
}

#[tokio::test]
async fn sockets_made_inside_lead_out_and_in_and_nothing_else_does() {
    let mut class = talkative();
    class.agent.port = 8712;
    let test = "sockets_made_inside_lead_out_and_in";
    let Some(pod) = contained(test, class).await else {
        return;
    };
    assert_eq!(pod.said("environment CARREL_AGENT_PORT").await, "8712");
    let seen = pod.said("model /v1/messages").await;
    assert!(
        seen.contains("Bearer"),
        "the router was not reached: {seen}"
    );
    let refused = pod.said("connect example.org:443").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert_eq!(
        pod.said("sh ls /sys/class/net 2>/dev/null; cat /proc/net/route | wc -l")
            .await
            .lines()
            .last(),
        Some("1")
    );
    assert_eq!(
        pod.said("sh cat /proc/1/comm").await.trim(),
        "pod-under-test"
    );
}

#[tokio::test]
async fn every_process_of_the_namespace_is_frozen_and_thawed() {
    let test = "every_process_of_the_namespace_is_frozen";
    let Some(pod) = contained(test, talkative()).await else {
        return;
    };
    fs::write(pod.path("snapshots-take-milliseconds"), "300").expect("written");
    let writer = "while :; do echo x >> ticks; sleep 0.01; done";
    pod.said(&format!("sh setsid sh -c '{writer}' >/dev/null 2>&1 &"))
        .await;
    until("the writer writes", || async {
        pod.workspace("ticks").exists()
    })
    .await;
    let frames = pod.turn("count").await;
    let Some(Frame::Committed { snapshot_id, .. }) = frames.last() else {
        panic!("{frames:?}")
    };
    let ticks = |name: &str| fs::read(pod.path(name).join("ticks")).expect("kept").len();
    let kept = ticks(snapshot_id.as_str());
    assert_eq!(kept, ticks(&format!("{}-again", snapshot_id.as_str())));
    until("the writer goes on", || async { ticks("w") > kept }).await;
}

#[tokio::test]
async fn an_agent_with_many_restless_processes_is_ended_whole() {
    // Each starts another and ends, without end; how many may be at once is for the fleet to limit.
    let script =
        "r() { (sleep 0.01; r) & }; for i in 1 2 3 4 5 6 7 8; do r; done; sleep 0.3; exit 4";
    let test = "an_agent_with_many_restless_processes";
    let Some(mut pod) = contained(test, command(script)).await else {
        return;
    };
    let frames = pod.turn("go").await;
    assert!(
        matches!(frames.last(), Some(Frame::Failed { .. })),
        "{frames:?}"
    );
    wait(&mut pod.sidecar).await;
    wait(&mut pod.shim).await;
}

#[tokio::test]
async fn the_namespace_ends_with_the_sidecar_and_not_by_a_request() {
    let test = "the_namespace_ends_with_the_sidecar";
    let Some(mut pod) = contained(test, talkative()).await else {
        return;
    };
    pod.said("sh kill -TERM 1; setsid sleep 600 >/dev/null 2>&1 &")
        .await;
    assert_eq!(pod.said("count").await, "1");
    kill(&pod.sidecar, Signal::KILL);
    wait(&mut pod.shim).await;
}
