//! Pods that nobody watches from beside, as on Kubernetes: told by variables, asked over TCP, heard of by their farewell.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use carrel_core::class::ClassSpec;
use carrel_core::lifecycle::Ending;
use carrel_core::{Epoch, PodUid};
use carrel_protocol::sidecar::{Farewell, Frame, Phase};
use carrel_protocol::{Code, Problem};
use carrel_sidecar::Exit;
use carrel_testkit::until;
use reqwest::Method;
use rustix::process::Signal;
use tokio::process::Command;

use crate::pod::{PROGRAM, Pod, Start, command, frames, kill, talkative, turn_order, wait};

/// A port that was free just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Tells a sidecar what a pod's document does.
pub(crate) fn tell(sidecar: &mut Command, folder: &Path, uid: PodUid, keys: &str) -> u16 {
    let (port, path) = (free_port(), |name: &str| folder.join(name));
    sidecar
        .arg("sidecar")
        .args(["--listen", &format!("0.0.0.0:{port}")])
        .arg("--shim-socket")
        .arg(path("run/shim.sock"))
        .arg("--workspace")
        .arg(path("w"))
        .arg("--farewell")
        .arg(path("farewell"))
        .env("CARREL_POD_UID", uid.to_string())
        .env("CARREL_FLEET_KEYS", keys);
    port
}

/// A blank pod on its own, whose sidecar is told more.
async fn blank(class: ClassSpec, more: &[&str]) -> Pod {
    let sidecar = |folder: &Path, uid: PodUid, keys: &str| {
        let mut command = Command::new(PROGRAM);
        let port = Some(tell(&mut command, folder, uid, keys));
        command.args(more);
        Start { command, port }
    };
    let shim = |folder: &Path| {
        let mut shim = Command::new(PROGRAM);
        shim.args(["shim", "--socket"]);
        shim.arg(folder.join("run/shim.sock"));
        shim
    };
    Pod::start(class, sidecar, shim).await
}

pub(crate) fn farewell(pod: &Pod) -> Farewell {
    let text = fs::read_to_string(pod.path("farewell")).expect("a farewell");
    Farewell::read(&text).unwrap_or_else(|| panic!("no farewell: {text}"))
}

async fn is_ready(pod: &Pod) -> (u16, String) {
    let answer = pod.bare(Method::GET, "/readyz").send().await;
    let answer = answer.expect("an answer");
    (
        answer.status().as_u16(),
        answer.text().await.expect("a text"),
    )
}

async fn until_ready(pod: &Pod) {
    until("the pod is ready", || async {
        is_ready(pod).await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn one_that_slept_says_so_with_its_last_snapshot() {
    let mut pod = blank(talkative(), &[]).await.waked().await;
    assert_eq!(pod.said("count").await, "1");
    kill(&pod.sidecar, Signal::TERM);
    assert_eq!(pod.exit().await, Exit::Clean);
    assert!(wait(&mut pod.shim).await.success());
    let last = pod.vault.ledger(|ledger| ledger.head.snapshot_id.clone());
    let said = Farewell {
        ending: Ending::Slept,
        committed: true,
        fell_back: false,
        fence: None,
        snapshot_id: last,
        reason: String::new(),
    };
    assert!(said.snapshot_id.is_some());
    assert_eq!(farewell(&pod), said);
}

#[tokio::test]
async fn one_whose_turn_failed_says_that_it_was_discarded() {
    let mut pod = blank(command("exit 3"), &[]).await.waked().await;
    pod.turn("go").await;
    assert_eq!(pod.exit().await, Exit::TurnFailed);
    let said = farewell(&pod);
    assert_eq!((said.ending, said.committed), (Ending::Discarded, false));
}

#[tokio::test]
async fn one_that_is_refused_names_the_fence() {
    let mut pod = blank(talkative(), &[]).await;
    pod.vault
        .ledger(|ledger| ledger.head_faults.push_back(Problem::stale_epoch(Epoch(8))));
    assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 200);
    assert_eq!(pod.exit().await, Exit::Fenced);
    let said = farewell(&pod);
    assert_eq!((said.ending, said.fence), (Ending::Died, Some(Epoch(8))));
    assert!(!said.reason.is_empty());
}

#[tokio::test]
async fn one_whose_commit_is_refused_names_the_fence() {
    let mut pod = blank(talkative(), &[]).await.waked().await;
    pod.vault.ledger(|ledger| {
        ledger
            .commit_faults
            .push_back(Err(Problem::stale_epoch(Epoch(9))));
    });
    pod.turn("count").await;
    assert_eq!(pod.exit().await, Exit::Fenced);
    assert_eq!(farewell(&pod).fence, Some(Epoch(9)));
}

#[tokio::test]
async fn one_that_cannot_start_says_why() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut sidecar = Command::new(PROGRAM);
    tell(
        &mut sidecar,
        folder.path(),
        PodUid(uuid::Uuid::nil()),
        "no keys",
    );
    let status = sidecar.status().await.expect("it ran");
    assert_eq!(
        status.code().and_then(Exit::from_code),
        Some(Exit::Internal)
    );
    let text = fs::read_to_string(folder.path().join("farewell")).expect("a farewell");
    let said = Farewell::read(&text).expect("a farewell");
    assert_eq!(said.ending, Ending::Died);
    assert!(said.reason.contains("could not start"), "{said:?}");
}

#[tokio::test]
async fn the_end_of_the_agents_container_is_the_agents_death() {
    let mut pod = blank(talkative(), &[]).await.waked().await;
    let answer = pod.order(&turn_order("begin")).await;
    kill(&pod.shim, Signal::KILL);
    let heard = frames(answer).await;
    assert!(
        matches!(heard.last(), Some(Frame::Died { by_agent: true, .. })),
        "{heard:?}"
    );
    assert_eq!(pod.exit().await, Exit::AgentDied);
    assert_eq!(farewell(&pod).ending, Ending::Died);
}

#[tokio::test]
async fn in_a_pod_that_is_ended_as_a_whole_it_is_not() {
    let mut pod = blank(talkative(), &[]).await.waked().await;
    let answer = pod.order(&turn_order("begin")).await;
    kill(&pod.sidecar, Signal::TERM);
    until("it drains", || async {
        pod.hello().await.phase == Phase::Draining
    })
    .await;
    kill(&pod.shim, Signal::KILL);
    let heard = frames(answer).await;
    assert!(
        matches!(
            heard.last(),
            Some(Frame::Died {
                by_agent: false,
                ..
            })
        ),
        "{heard:?}"
    );
    assert_eq!(pod.exit().await, Exit::ShimLost);
}

#[tokio::test]
async fn one_that_is_told_to_end_has_its_grace_and_no_more() {
    let mut pod = blank(talkative(), &["--grace-seconds", "1"])
        .await
        .waked()
        .await;
    let answer = pod.order(&turn_order("begin")).await;
    let told = Instant::now();
    kill(&pod.sidecar, Signal::TERM);
    assert_eq!(pod.exit().await, Exit::Interrupted);
    assert!(told.elapsed() < Duration::from_secs(20), "not its own");
    drop(answer);
    let said = farewell(&pod);
    assert_eq!(said.ending, Ending::Died);
    assert!(said.reason.contains("told to end"), "{said:?}");
}

#[tokio::test]
async fn it_is_ready_when_its_shim_has_come_and_stays_so() {
    let sidecar = |folder: &Path, uid: PodUid, keys: &str| {
        let mut command = Command::new(PROGRAM);
        let port = Some(tell(&mut command, folder, uid, keys));
        Start { command, port }
    };
    let late = |folder: &Path| {
        let mut shim = Command::new("/bin/sh");
        let wait = "until [ -e go ]; do sleep 0.01; done; exec \"$0\" shim --socket run/shim.sock";
        shim.args(["-c", wait, PROGRAM]).current_dir(folder);
        shim
    };
    let pod = Pod::start(talkative(), sidecar, late).await;
    let (status, why) = is_ready(&pod).await;
    assert_eq!(status, 503);
    assert!(why.contains("has not connected"), "{why}");
    fs::write(pod.path("go"), "").expect("written");
    until_ready(&pod).await;
    let pod = pod.waked().await;
    assert_eq!(is_ready(&pod).await.0, 200, "assigned");
    let busy = pod.order(&turn_order("begin")).await;
    assert_eq!(is_ready(&pod).await.0, 200, "busy");
    kill(&pod.sidecar, Signal::TERM);
    until("it drains", || async {
        pod.hello().await.phase == Phase::Draining
    })
    .await;
    assert_eq!(is_ready(&pod).await.0, 200, "draining");
    drop(busy);
}

#[tokio::test]
async fn one_that_reaches_what_it_must_not_takes_nobody_in() {
    let forbidden = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = forbidden.local_addr().expect("an address").to_string();
    let pod = blank(talkative(), &["--must-not-reach", &address]).await;
    until("it says what it reaches", || async {
        is_ready(&pod).await.1.contains(&address)
    })
    .await;
    assert_eq!(is_ready(&pod).await.0, 503);
    let refused = pod.assign(&pod.assignment(7)).await;
    assert_eq!(refused.status(), 503);
    let problem: Problem = refused.json().await.expect("a problem");
    assert_eq!(problem.code, Code::Unavailable);
    assert!(problem.detail.contains(&address), "{problem}");

    // As when its policies come.
    drop(forbidden);
    until_ready(&pod).await;
    let pod = pod.waked().await;
    assert_eq!(pod.said("count").await, "1");
}

#[tokio::test]
async fn one_that_reaches_nothing_at_all_proves_nothing_by_it() {
    let [router, shut] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let told = ["--must-not-reach", &shut, "--must-reach", &router];
    let pod = blank(talkative(), &told).await;
    until("it says what it does not reach", || async {
        is_ready(&pod).await.1.contains(&router)
    })
    .await;
    assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 503);
    let _router = TcpListener::bind(&router).expect("it is free");
    until_ready(&pod).await;
}
