//! Turns that are committed.

use carrel_testkit::until;
use std::fs;
use std::time::{Duration, Instant};

use carrel_core::Generation;
use carrel_protocol::sidecar::Frame;
use futures::StreamExt;
use reqwest::Method;

use crate::pod::{Pod, attachment, command, frames, talkative, text_of, turn_order};

#[tokio::test]
async fn a_turn_is_told_frame_by_frame_and_committed_with_its_reply() {
    let pod = Pod::ready(talkative()).await;
    let order = turn_order("count");
    let heard = frames(pod.order(&order).await).await;
    let Some(Frame::Committed {
        version,
        generation,
        snapshot_id,
        stopped,
        reply,
        usage,
        ..
    }) = heard.last()
    else {
        panic!("not committed: {heard:?}")
    };
    assert_eq!(
        (generation, *stopped, reply.text.as_str()),
        (&Generation(1), false, "1")
    );
    assert_eq!((version.0, usage.output_tokens), (41, 5));
    assert!(matches!(&heard[0], Frame::Status { text } if text == "thinking"));
    assert!(matches!(&heard[1], Frame::Tool { name, .. } if name == "look"));
    assert_eq!(text_of(&heard), "1");
    assert!(heard.contains(&Frame::Snapshotting));
    let commit = pod.vault.ledger(|ledger| ledger.commits[0].clone());
    assert_eq!(
        (commit.turn_id, commit.parent_snapshot_id),
        (Some(order.turn_id), None)
    );
    assert_eq!(&commit.snapshot_id, snapshot_id);
    let result = commit.result.expect("with the turn");
    assert_eq!((&result.reply, result.stopped), (reply, false));
    assert_eq!(result.timing.restore, order.restore_ms);
    let kept = pod.path(snapshot_id.as_str()).join("count");
    assert_eq!(fs::read_to_string(kept).expect("kept"), "1");

    assert_eq!(pod.said("count").await, "2");
    let second = pod.vault.ledger(|ledger| ledger.commits[1].clone());
    assert_eq!(second.parent_snapshot_id.as_ref(), Some(snapshot_id));
    assert!(pod.hello().await.committed);
}

#[tokio::test]
async fn the_next_incarnation_goes_on_from_the_head() {
    let first = Pod::ready(talkative()).await;
    assert_eq!(first.said("count").await, "1");
    let head = first.vault.ledger(|ledger| ledger.head.clone());
    let second = Pod::ready_from(talkative(), |pod| {
        let id = head.snapshot_id.as_ref().expect("committed").as_str();
        fs::create_dir(pod.path(id)).expect("made");
        fs::copy(first.path(id).join("count"), pod.path(id).join("count")).expect("copied");
        pod.vault.ledger(|ledger| ledger.head = head.clone());
    })
    .await;
    assert_eq!(second.said("count").await, "2");
    assert!(second.hello().await.restore_ms.is_some());
}

#[tokio::test]
async fn who_asks_again_hears_it_all_and_nothing_runs_twice() {
    let pod = Pod::ready(talkative()).await;
    let order = turn_order("count");
    let (one, two) = tokio::join!(pod.order(&order), pod.order(&order));
    let (one, two) = (frames(one).await, frames(two).await);
    let late = frames(pod.order(&order).await).await;
    assert_eq!(
        (text_of(&one), text_of(&two)),
        ("1".to_owned(), "1".to_owned())
    );
    assert_eq!((one.last(), two.last()), (late.last(), late.last()));
    assert_eq!(text_of(&late), "1");
    assert_eq!(pod.vault.ledger(|ledger| ledger.commits.len()), 1);
}

#[tokio::test]
async fn a_turn_goes_on_when_nobody_listens() {
    let pod = Pod::ready(talkative()).await;
    let order = turn_order("sh while [ ! -e go ]; do sleep 0.01; done; echo went on");
    drop(pod.order(&order).await);
    fs::write(pod.workspace("go"), "").expect("written");
    let heard = frames(pod.order(&order).await).await;
    assert_eq!(text_of(&heard), "went on\n");
}

#[tokio::test]
async fn another_turn_waits_its_turn() {
    let pod = Pod::ready(talkative()).await;
    let running = turn_order("begin");
    let answer = pod.order(&running).await;
    assert_eq!(pod.order(&turn_order("count")).await.status(), 409);
    stop(&pod, &running).await;
    assert!(matches!(
        frames(answer).await.last(),
        Some(Frame::Committed { stopped: true, .. })
    ));
    assert_eq!(pod.said("count").await, "1");
}

async fn stop(pod: &Pod, order: &carrel_protocol::sidecar::TurnOrder) {
    let path = format!("/v1/turns/{}/stop", order.turn_id);
    let answer = pod
        .call(Method::POST, &path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn what_was_said_before_a_stop_is_kept() {
    for class in [talkative(), command("printf begun; exec sleep 600")] {
        let pod = Pod::ready(class).await;
        let order = turn_order("begin");
        let mut answer = pod.order(&order).await.bytes_stream();
        let first = answer.next().await.expect("a frame").expect("read");
        assert!(String::from_utf8_lossy(&first).contains("begun"));
        stop(&pod, &order).await;
        let heard = frames(pod.order(&order).await).await;
        let Some(Frame::Committed {
            stopped: true,
            reply,
            ..
        }) = heard.last()
        else {
            panic!("not stopped: {heard:?}")
        };
        assert_eq!(reply.text, "begun");
        let result = pod.vault.ledger(|ledger| ledger.commits[0].result.clone());
        assert!(result.expect("with the turn").stopped);
    }
}

#[tokio::test]
async fn files_go_in_with_a_message_and_out_with_a_reply() {
    let pod = Pod::ready(talkative()).await;
    let mut order = turn_order("attached");
    order.attachments = vec![attachment("a.txt", "b25l"), attachment("../a.txt", "dHdv")];
    let heard = text_of(&frames(pod.order(&order).await).await);
    let inbox = format!("inbox/{}", order.message.message_id);
    assert!(heard.contains(&format!("{inbox}/a.txt")), "{heard}");
    assert_eq!(
        fs::read(pod.workspace(&inbox).join("a.txt")).expect("there"),
        b"one"
    );
    assert_eq!(
        fs::read(pod.workspace(&inbox).join("2-_a.txt")).expect("there"),
        b"two"
    );

    let frames = pod.turn(&format!("file {inbox}/a.txt")).await;
    let Some(Frame::Committed { reply, .. }) = frames.last() else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (reply.files[0].name.as_str(), reply.files[0].size_bytes),
        ("r.txt", 3)
    );
    let result = pod
        .vault
        .ledger(|ledger| ledger.commits[1].result.clone())
        .expect("a turn");
    assert_eq!(result.files[0].data, "b25l");
}

#[tokio::test]
async fn an_agent_is_told_what_the_contract_says_and_no_secret() {
    let pod = Pod::ready(talkative()).await;
    let environment = pod
        .said("sh cat /proc/$PPID/environ | tr '\\0' '\\n'; pwd")
        .await;
    let workspace = pod.path("w").display().to_string();
    for line in [
        &format!("CARREL_WORKSPACE={workspace}"),
        &format!("HOME={workspace}/.home"),
        "CARREL_LEARNER=opaque-1",
        "TZ=Europe/Berlin",
        "LANG=de_DE.UTF-8",
        "ANTHROPIC_AUTH_TOKEN=carrel",
        "OPENAI_API_KEY=carrel",
        &workspace,
    ] {
        assert!(
            environment.lines().any(|l| l == line),
            "no {line} in {environment}"
        );
    }
    let value = |name: &str| {
        let start = format!("{name}=");
        environment
            .lines()
            .find_map(|l| l.strip_prefix(&start))
            .expect(name)
            .to_owned()
    };
    assert_eq!(
        value("OPENAI_BASE_URL"),
        format!("{}/v1", value("ANTHROPIC_BASE_URL"))
    );
    assert!(value("HTTPS_PROXY").starts_with("http://127.0.0.1:"));
    assert!(
        !environment.contains("CARGO"),
        "our own environment leaked: {environment}"
    );
    assert!(!environment.contains("eyJ"), "a token leaked");
}

#[tokio::test]
async fn a_command_answers_on_its_output_and_what_it_left_running_ends_with_it() {
    let script = "cat; echo; setsid sleep 600 >/dev/null 2>&1 & echo $!; echo noise >&2";
    let pod = Pod::ready(command(script)).await;
    let said = pod.said("grüße").await;
    let (text, left_running) = said.split_once('\n').expect("two lines");
    assert_eq!(text, "grüße");
    assert!(
        !std::path::Path::new("/proc")
            .join(left_running.trim())
            .exists()
    );
    assert_eq!(pod.said("again").await.lines().next(), Some("again"));
}

#[tokio::test]
async fn a_reply_that_comes_faster_than_anybody_reads_is_whole_and_has_to_wait() {
    // After the first MiB, what is left takes its time at 4 MiB a second.
    let at_least = Duration::from_millis(700);
    let script = "head -c 4128768 /dev/zero | tr '\\0' x";
    for (class, text) in [(talkative(), "much"), (command(script), "go")] {
        let pod = Pod::ready(class).await;
        let began = Instant::now();
        let said = pod.said(text).await;
        let took = began.elapsed();
        assert_eq!(said.len(), 63 << 16);
        assert!(took >= at_least, "{text} took {took:?}");
    }
}

#[tokio::test]
async fn nothing_writes_while_a_snapshot_is_taken_and_all_goes_on_after() {
    let pod = Pod::ready(talkative()).await;
    fs::write(pod.path("snapshots-take-milliseconds"), "300").expect("written");
    let writer = "while :; do echo x >> ticks; sleep 0.01; done";
    pod.said(&format!("sh setsid sh -c '{writer}' >/dev/null 2>&1 &"))
        .await;
    until("the writer writes", || async {
        pod.workspace("ticks").exists()
    })
    .await;
    let id = pod.said_snapshot("count").await;
    let ticks = |name: &str| fs::read(pod.path(name).join("ticks")).expect("kept").len();
    let kept = ticks(&id);
    assert_eq!(kept, ticks(&format!("{id}-again")));
    until("the writer goes on", || async { ticks("w") > kept }).await;
}

impl Pod {
    async fn said_snapshot(&self, text: &str) -> String {
        match self.turn(text).await.last() {
            Some(Frame::Committed { snapshot_id, .. }) => snapshot_id.as_str().to_owned(),
            other => panic!("not committed: {other:?}"),
        }
    }
}
