//! Turns that are not committed, and pods that do not wake.

use carrel_testkit::until;
use std::fs;

use axum::http::StatusCode;
use carrel_core::Epoch;
use carrel_core::turn::FailureCode;
use carrel_protocol::sidecar::{Frame, Phase};
use carrel_protocol::{Code, Problem};
use carrel_sidecar::Exit;
use rustix::process::Signal;

use crate::pod::{Pod, command, frames, kill, runs, talkative, turn_order, wait};

/// Runs a turn that fails; its code.
async fn failure(pod: &mut Pod, text: &str) -> FailureCode {
    failed(pod, text).await.0
}

/// Runs a turn that fails; its code, what the learner is told and what the operator is.
async fn failed(pod: &mut Pod, text: &str) -> (FailureCode, String, String) {
    let mut heard = pod.turn(text).await;
    let Some(Frame::Failed {
        code,
        detail,
        operator_reason,
        ..
    }) = heard.pop()
    else {
        panic!("not failed: {heard:?}")
    };
    assert_eq!(pod.exit().await, Exit::TurnFailed);
    assert!(wait(&mut pod.shim).await.success());
    assert_eq!(
        pod.vault.ledger(|ledger| ledger.commits.len()),
        0,
        "something was committed"
    );
    (code, detail, operator_reason)
}

#[tokio::test]
async fn an_agents_failures_have_their_reasons_and_commit_nothing() {
    let cases = [
        ("write-then-fail", FailureCode::AgentFailed),
        ("break-off", FailureCode::AgentEnded),
        ("nonsense", FailureCode::AgentFailed),
        ("flood", FailureCode::OutputLimit),
        ("long-line", FailureCode::OutputLimit),
        ("file ../keys", FailureCode::AgentFailed),
        ("file missing", FailureCode::AgentFailed),
    ];
    for (text, code) in cases {
        let mut pod = Pod::ready(talkative()).await;
        assert_eq!(failure(&mut pod, text).await, code, "{text}");
    }
}

#[tokio::test]
async fn a_commands_failures_have_their_reasons() {
    let cases = [
        ("echo half; exit 3", FailureCode::AgentFailed),
        ("yes", FailureCode::OutputLimit),
    ];
    for (script, code) in cases {
        let mut pod = Pod::ready(command(script)).await;
        assert_eq!(failure(&mut pod, "go").await, code, "{script}");
    }
}

#[tokio::test]
async fn a_silent_agent_fails_its_turn_in_time() {
    let mut class = talkative();
    class.turn.timeout_seconds = 1;
    let mut pod = Pod::ready(class).await;
    assert_eq!(failure(&mut pod, "begin").await, FailureCode::Timeout);
}

#[tokio::test]
async fn an_agent_that_fills_its_workspace_is_ended() {
    let mut class = talkative();
    class.resources.ephemeral_storage.0 = 4 << 20;
    let mut pod = Pod::ready(class).await;
    let script = "sh head -c 20000000 /dev/zero > big; sleep 600";
    assert_eq!(failure(&mut pod, script).await, FailureCode::WorkspaceLimit);
}

#[tokio::test]
async fn room_that_has_no_name_any_more_counts_while_it_is_held() {
    let mapped = format!(
        "perl -e 'open F, q(+>big); print F q(x) x 20_000_000; unlink q(big); \
            syscall({}, 0, 20_000_000, 1, 2, fileno F, 0); close F; sleep 600'",
        libc::SYS_mmap
    );
    let opened = "exec 3>big; rm big; head -c 20000000 /dev/zero >&3; sleep 600";
    // Over before anybody has looked: what is left of it holds on.
    let quick = format!("{opened} >/dev/null 2>&1 &");
    let homeless = "exec 3>big; head -c 20000000 /dev/zero >&3; rm -r $PWD; sleep 600";
    for script in [opened, &mapped, &quick, homeless] {
        let mut class = talkative();
        class.resources.ephemeral_storage.0 = 4 << 20;
        let mut pod = Pod::ready(class).await;
        let code = failure(&mut pod, &format!("sh {script}")).await;
        assert_eq!(code, FailureCode::WorkspaceLimit, "{script}");
    }
}

#[tokio::test]
async fn what_is_hidden_when_a_turn_ends_fails_it() {
    let socket = "socketpair($to, $from, AF_UNIX, SOCK_STREAM, 0); \
        $rights = pack(q(QiiiI), 20, SOL_SOCKET, 1, fileno F, 0); $byte = q(x); \
        $io = pack(q(PQ), $byte, 1); $message = pack(q(QQPQPQQ), 0, 0, $io, 1, $rights, 24, 0);";
    let parked = format!(
        "{socket} syscall({}, fileno $to, $message, 0);",
        libc::SYS_sendmsg
    );
    let page = format!("syscall({}, 0, 4096, 1, 2, fileno F, 0);", libc::SYS_mmap);
    for hide in [parked, page] {
        let mut pod = Pod::ready(talkative()).await;
        // Small, and over before anybody has looked.
        let hidden = format!(
            "perl -e 'use Socket; use IO::Handle; open F, q(+>small); print F q(x) x 5000; F->flush; unlink q(small); \
                {hide} close F; exit if fork; close STDOUT; close STDERR; sleep 600'"
        );
        let code = failure(&mut pod, &format!("sh {hidden}")).await;
        assert_eq!(code, FailureCode::WorkspaceLimit, "{hide}");
    }
}

#[tokio::test]
async fn a_program_that_goes_on_with_a_file_that_was_replaced_is_named() {
    let mut pod = Pod::ready(talkative()).await;
    // Small, and over before anybody has looked.
    let upgrade = format!(
        "perl -e 'use IO::Handle; open F, q(+>lib.so); print F q(x) x 5000; F->flush; \
            syscall({}, 0, 4096, 1, 2, fileno F, 0); close F; \
            open N, q(>new); close N; rename q(new), q(lib.so); \
            exit if fork; close STDOUT; close STDERR; sleep 600'",
        libc::SYS_mmap
    );
    let (code, detail, reason) = failed(&mut pod, &format!("sh {upgrade}")).await;
    assert_eq!(code, FailureCode::WorkspaceLimit);
    assert!(detail.contains("Stop the program"), "{detail}");
    assert!(
        reason.contains("'perl' still uses 'lib.so'") && reason.contains("replaced"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_agent_that_fills_its_workspace_while_nobody_asks_is_ended() {
    let mut class = talkative();
    class.resources.ephemeral_storage.0 = 4 << 20;
    let mut pod = Pod::ready(class).await;
    let later = "(read go < begin; head -c 20000000 /dev/zero > big; sleep 600) >/dev/null 2>&1 &";
    pod.said(&format!("sh mkfifo begin; {later}")).await;
    let begin = pod.workspace("begin");
    // Opened when the other end is.
    let begun = tokio::task::spawn_blocking(move || fs::write(begin, "go"));
    begun.await.expect("joined").expect("written");
    assert_eq!(pod.exit().await, Exit::SnapshotRefused);
    assert!(wait(&mut pod.shim).await.success());
}

#[tokio::test]
async fn a_refused_snapshot_fails_the_turn() {
    let mut pod = Pod::ready(talkative()).await;
    let refusal = r#"{"limit": {"what": "files", "limit": 5}}"#;
    fs::write(pod.path("snapshots-fail"), refusal).expect("written");
    assert_eq!(
        failure(&mut pod, "count").await,
        FailureCode::WorkspaceLimit
    );
}

#[tokio::test]
async fn an_agents_death_by_a_foreign_signal_counts_against_it() {
    for class in [talkative(), command("kill -9 $$")] {
        let mut pod = Pod::ready(class).await;
        let heard = pod.turn("kill-me").await;
        let Some(Frame::Died {
            by_agent: true,
            reason,
        }) = heard.last()
        else {
            panic!("{heard:?}")
        };
        assert!(reason.contains("signal 9"), "{reason}");
        assert_eq!(pod.exit().await, Exit::AgentDied);
    }
}

#[tokio::test]
async fn a_child_of_the_agent_may_die() {
    let pod = Pod::ready(talkative()).await;
    assert_eq!(
        pod.said("sh sh -c 'kill -9 $$'; echo survived").await,
        "survived\n"
    );
}

#[tokio::test]
async fn the_death_of_the_shim_is_not_the_agents() {
    let mut pod = Pod::ready(talkative()).await;
    let agent = pod.said("sh echo $PPID").await;
    let answer = pod.order(&turn_order("begin")).await;
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
    until("the agent is gone", || async { !runs(&agent) }).await;
}

#[tokio::test]
async fn everything_ends_with_the_sidecar() {
    let mut pod = Pod::ready(talkative()).await;
    let left_running = "setsid sleep 600 >/dev/null 2>&1 & echo $!; echo $PPID";
    let said = pod.said(&format!("sh {left_running}")).await;
    assert!(
        said.lines().count() == 2 && said.lines().all(runs),
        "{said}"
    );
    kill(&pod.shim, Signal::TERM);
    kill(&pod.sidecar, Signal::KILL);
    assert!(wait(&mut pod.shim).await.success());
    for pid in said.lines() {
        assert!(!runs(pid), "{pid} still runs");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_repeated_and_counts_once() {
    let pod = Pod::ready(talkative()).await;
    pod.vault.ledger(|ledger| {
        ledger.commit_faults.extend([
            Err(Problem::new(Code::Unavailable, "later")),
            Ok(StatusCode::BAD_GATEWAY),
        ]);
    });
    assert_eq!(pod.said("count").await, "1");
    assert_eq!(pod.vault.ledger(|ledger| ledger.commits.len()), 1);
}

#[tokio::test]
async fn an_incarnation_that_was_replaced_ends_without_a_commit() {
    for refusal in [
        Problem::stale_epoch(Epoch(9)),
        Problem::new(Code::HeadMoved, ""),
        Problem::new(Code::TurnNotRunning, ""),
    ] {
        let mut pod = Pod::ready(talkative()).await;
        pod.vault
            .ledger(|ledger| ledger.commit_faults.push_back(Err(refusal)));
        let heard = pod.turn("count").await;
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
        assert_eq!(pod.exit().await, Exit::Fenced);
    }
}

#[tokio::test]
async fn a_fenced_incarnation_does_not_wake() {
    let mut pod = Pod::blank(talkative()).await;
    pod.vault
        .ledger(|ledger| ledger.head_faults.push_back(Problem::stale_epoch(Epoch(8))));
    assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 200);
    assert_eq!(pod.exit().await, Exit::Fenced);
}

#[tokio::test]
async fn a_vault_that_is_away_is_waited_for() {
    let pod = Pod::ready_from(talkative(), |pod| {
        let away = || Problem::new(Code::Unavailable, "its storage is away");
        pod.vault
            .ledger(|ledger| ledger.head_faults.extend([away(), away(), away()]));
    })
    .await;
    assert_eq!(pod.said("count").await, "1");
}

#[tokio::test]
async fn an_agent_that_does_not_start_is_said_to() {
    let mut class = talkative();
    class.agent.command = vec!["/nowhere/agent".to_owned()];
    let mut pod = Pod::blank(class).await;
    let assignment = pod.assignment(7);
    let (hello, _) = tokio::join!(pod.hello_when_settled(), pod.assign(&assignment));
    assert_eq!(hello.phase, Phase::Ending);
    assert!(hello.detail.contains("/nowhere/agent"), "{}", hello.detail);
    assert_eq!(pod.exit().await, Exit::AgentNotReady);
}

#[tokio::test]
async fn an_agent_that_ends_while_nobody_asks_ends_its_incarnation() {
    let mut pod = Pod::ready(talkative()).await;
    let agent = pod.said("sh echo $PPID").await;
    crate::pod::kill_pid(agent.trim().parse().expect("a pid"), Signal::KILL);
    assert_eq!(pod.exit().await, Exit::AgentDied);
}

#[tokio::test]
async fn processes_that_start_others_without_end_are_ended_all() {
    let restless = "r() { (sleep 0.02; r) & }; for i in 1 2 3 4; do r; done; sleep 0.2";
    let mut pod = Pod::ready(command(&format!("cd /; {restless}; exit 4"))).await;
    let heard = pod.turn("go").await;
    assert!(
        matches!(heard.last(), Some(Frame::Failed { .. })),
        "{heard:?}"
    );
    assert_eq!(pod.exit().await, Exit::TurnFailed);
    // The shim ends when none is left.
    assert!(wait(&mut pod.shim).await.success());
}
