//! Falling asleep.

use std::time::{Duration, Instant};

use carrel_protocol::Code;
use carrel_protocol::sidecar::Frame;
use carrel_sidecar::Exit;
use carrel_testkit::until;
use reqwest::Method;
use rustix::process::Signal;

use crate::pod::{Pod, command, frames, kill, skip, talkative, turn_order, wait};

#[tokio::test]
async fn a_quiet_learner_falls_asleep_by_itself() {
    let mut class = talkative();
    (class.idle.min_seconds, class.idle.max_seconds) = (1, 1);
    let mut pod = Pod::ready(class).await;
    assert_eq!(pod.said("count").await, "1");
    assert_eq!(pod.exit().await, Exit::Clean);
    assert!(wait(&mut pod.shim).await.success());
    let commits = pod.vault.ledger(|ledger| ledger.commits.clone());
    assert_eq!(
        commits.len(),
        1,
        "nothing had changed, and it was saved again"
    );
}

/// A pod whose class leaves it wide room, woken with these gaps between its learner's last messages.
async fn with_gaps(gaps: &[u32]) -> Pod {
    let mut class = talkative();
    (class.idle.min_seconds, class.idle.max_seconds) = (1, 600);
    Pod::ready_from(class, |pod| {
        pod.vault
            .ledger(|ledger| ledger.head.recent_gaps_seconds = gaps.to_vec());
    })
    .await
}

#[tokio::test]
async fn how_long_it_may_be_quiet_is_known_from_the_gaps_that_come_with_the_head() {
    let began = Instant::now();
    let mut pod = with_gaps(&[600, 1, 1, 1]).await;
    assert_eq!(pod.exit().await, Exit::Clean);
    let awake = began.elapsed();
    assert!(awake >= Duration::from_secs(3), "three gaps: {awake:?}");
}

#[tokio::test]
async fn messages_that_come_fast_shorten_what_was_known() {
    let mut pod = with_gaps(&[600; 4]).await;
    for turn in 1..=5 {
        assert_eq!(pod.said("count").await, turn.to_string());
    }
    assert_eq!(pod.exit().await, Exit::Clean);
}

#[tokio::test]
async fn one_that_is_awake_too_long_sleeps_when_it_is_quiet() {
    let mut class = talkative();
    class.idle.max_awake_seconds = 4;
    let mut pod = Pod::ready(class).await;
    assert_eq!(pod.said("sh sleep 4.2; echo done").await, "done\n");
    assert_eq!(pod.exit().await, Exit::Clean);
}

#[tokio::test]
async fn what_changed_since_the_last_turn_is_saved_before_sleep() {
    for by_signal in [true, false] {
        let mut pod = Pod::ready(talkative()).await;
        assert_eq!(pod.said("count").await, "1");
        let request = pod.call(Method::POST, "/agent/echo/x").body("changed");
        assert_eq!(request.send().await.expect("an answer").status(), 200);
        pod.told_to_sleep(by_signal).await;
        assert_eq!(pod.exit().await, Exit::Clean);
        let last = pod.vault.ledger(|ledger| ledger.commits[1].clone());
        assert_eq!((last.turn_id, last.result), (None, None));
        let kept = pod.path(last.snapshot_id.as_str()).join("touched");
        assert_eq!(std::fs::read_to_string(kept).expect("kept"), "changed");
    }
}

#[tokio::test]
async fn a_running_turn_ends_first_and_no_other_is_taken() {
    for by_signal in [true, false] {
        let mut pod = Pod::ready(talkative()).await;
        let running = turn_order("sh while [ ! -e go ]; do sleep 0.01; done; echo done");
        let answer = pod.order(&running).await;
        pod.told_to_sleep(by_signal).await;
        pod.until_draining().await;
        let refused = pod.order(&turn_order("count")).await;
        let problem: carrel_protocol::Problem = refused.json().await.expect("a problem");
        assert_eq!(problem.code, Code::Draining);
        std::fs::write(pod.workspace("go"), "").expect("written");
        let heard = frames(answer).await;
        assert!(
            matches!(heard.last(), Some(Frame::Committed { .. })),
            "{heard:?}"
        );
        assert_eq!(pod.exit().await, Exit::Clean);
    }
}

#[tokio::test]
async fn a_command_needs_no_second_snapshot() {
    let mut pod = Pod::ready(command("date > now; cat")).await;
    assert_eq!(pod.said("hi").await, "hi");
    kill(&pod.sidecar, Signal::TERM);
    assert_eq!(pod.exit().await, Exit::Clean);
    assert_eq!(pod.vault.ledger(|ledger| ledger.commits.len()), 1);
}

impl Pod {
    /// By SIGTERM, as a node that is drained or goes does it, or by a call.
    async fn told_to_sleep(&self, by_signal: bool) {
        if by_signal {
            return kill(&self.sidecar, Signal::TERM);
        }
        let call = self.call(Method::POST, "/v1/sleep").send();
        assert_eq!(call.await.expect("an answer").status(), 202);
    }

    async fn until_draining(&self) {
        use carrel_protocol::sidecar::Phase;
        until("it drains", async || {
            self.hello().await.phase == Phase::Draining
        })
        .await;
    }
}

/// What a process has for itself, in KiB; `None` where that cannot be seen.
fn own_memory(child: &tokio::process::Child, kind: &str) -> Option<u64> {
    let path = format!("/proc/{}/smaps_rollup", child.id()?);
    let rollup = std::fs::read_to_string(path).ok()?;
    let line = rollup.lines().find(|line| line.starts_with(kind))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn at_rest_a_learner_costs_little_memory_beside_its_agent() {
    let pod = Pod::ready(talkative()).await;
    assert_eq!(pod.said("count").await, "1");
    let own = |child| own_memory(child, "Private_Dirty:");
    let (Some(sidecar), Some(shim)) = (own(&pod.sidecar), own(&pod.shim)) else {
        let reason = "the memory of other processes cannot be seen here";
        return skip("at_rest_a_learner_costs_little_memory", "smaps", reason);
    };
    println!("sidecar {sidecar} KiB, shim {shim} KiB");
    assert!(
        sidecar + shim <= 10 * 1024,
        "sidecar {sidecar} KiB, shim {shim} KiB"
    );
}
