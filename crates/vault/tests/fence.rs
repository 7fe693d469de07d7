//! Who may read, write and commit: tokens, fences, repeats, and what a pod may never do.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use carrel_core::{Generation, MessageId, TurnId};
use carrel_protocol::vault::{DataKey, Head};
use carrel_sidecar::snapshot::{Error, ErrorKind};
use carrel_store::turns::NewMessage;
use carrel_testkit::until;
use futures::{FutureExt, StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use jiff::Timestamp;
use support::{Desk, answer};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

fn conflict(code: &str) -> (u16, String) {
    (409, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_pod_reads_writes_and_commits_nothing() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "first").unwrap();
    let mut old = desk.pod(&ada, 1).await;
    old.save(workspace.path()).await;
    fs::write(workspace.path().join("note"), "second").unwrap();
    let late = old.backup(workspace.path()).await;

    let new = desk.pod(&ada, 2).await;
    assert_eq!(new.head, old.head);
    assert_eq!(old.get::<Head>("head").await, Err(conflict("stale_epoch")));
    assert_eq!(
        old.get::<DataKey>("key").await.err(),
        Some(conflict("stale_epoch"))
    );
    let refused = old.put_head(&old.request(&late.snapshot_id)).await;
    assert_eq!(refused, Err(conflict("stale_epoch")));
    let unread = desk.client.put(old.url("head")).bearer_auth(old.token());
    let refused = answer::<Head>(unread.body("what it sends is not looked at")).await;
    assert_eq!(refused, Err(conflict("stale_epoch")));
    let refused = old.report_damage().await;
    assert_eq!(refused, Err(conflict("stale_epoch")));
    let backup = old.snapshots().backup(workspace.path(), None).await;
    let error = backup.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(
        matches!(error, Error::Fenced(Some(fence)) if fence.0 == 2),
        "{error}"
    );
    assert_eq!(new.get::<Head>("head").await.unwrap(), new.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_repeated_is_answered_alike_and_one_that_comes_late_is_refused() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let workspace = tempfile::tempdir().unwrap();
    let pod = desk.pod(&ada, 1).await;
    let mut snapshots = Vec::new();
    for text in ["one", "two"] {
        fs::write(workspace.path().join("note"), text).unwrap();
        snapshots.push(pod.backup(workspace.path()).await.snapshot_id);
    }
    let (first, stalled) = (pod.request(&snapshots[0]), pod.request(&snapshots[1]));
    let answered = pod.put_head(&first).await.unwrap();
    assert_eq!(answered.generation, Generation(1));
    assert_eq!(pod.put_head(&first).await.unwrap(), answered);
    assert_eq!(pod.put_head(&stalled).await, Err(conflict("head_moved")));
    let mut other_epoch = first.clone();
    other_epoch.epoch = carrel_core::Epoch(9);
    assert_eq!(pod.put_head(&other_epoch).await.unwrap_err().0, 400);
    let head: Head = pod.get("head").await.unwrap();
    assert_eq!(
        (head.generation, head.snapshot_id),
        (Generation(1), Some(snapshots.remove(0)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_never_moves_to_a_snapshot_that_cannot_be_read() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "kept").unwrap();
    pod.save(workspace.path()).await;
    let nowhere = pod.request(&"ab".repeat(32).parse().unwrap());
    assert_eq!(
        pod.put_head(&nowhere).await,
        Err((422, "snapshot_unreadable".to_owned()))
    );

    // One of the packs that a snapshot needs is lost before its commit.
    let packs = || support::tree::files(&desk.repository(&pod.head).join("data"));
    let before = packs();
    fs::write(workspace.path().join("a note"), vec![3; 100_000]).unwrap();
    let snapshot = pod.backup(workspace.path()).await.snapshot_id;
    let new: Vec<_> = packs()
        .into_iter()
        .filter(|pack| !before.contains(pack))
        .collect();
    assert_eq!(new.len(), 2, "a pack of chunks and one of folders");
    for pack in new {
        let content = fs::read(&pack).unwrap();
        fs::remove_file(&pack).unwrap();
        let refused = pod.put_head(&pod.request(&snapshot)).await;
        assert_eq!(refused, Err((422, "snapshot_unreadable".to_owned())));
        fs::write(&pack, content).unwrap();
    }
    let commit = pod.request(&snapshot);
    assert_eq!(
        pod.put_head(&commit).await.unwrap().generation,
        Generation(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_no_upload() {
    let desk = Desk::new().await;
    let pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "kept").unwrap();
    let commit = pod.request(&pod.backup(workspace.path()).await.snapshot_id);

    let url = format!("http://vault/restic/ada/data/{}", "ab".repeat(32));
    let upload = || desk.client.post(&url).bearer_auth(pod.token());
    // Three take as much as there is room for and what one may take past it, and go silent.
    let silent = TaskTracker::new();
    for _ in 0..3 {
        let much = Frame::data(Bytes::from(vec![0; 64 << 20]));
        let much = stream::iter([Ok::<_, std::io::Error>(much)]);
        let body = reqwest::Body::wrap(StreamBody::new(much.chain(stream::pending())));
        silent.spawn(upload().body(body).send());
    }
    let (at_once, waits) = (Duration::from_secs(1), Mutex::new(None));
    until("an upload finds no room", async || {
        let mut more = Box::pin(upload().body("more").send());
        let is_late = timeout(at_once, &mut more).await.is_err();
        *waits.lock().unwrap() = is_late.then_some(more);
        is_late
    })
    .await;
    assert_eq!(
        pod.put_head(&commit).await.unwrap().generation,
        Generation(1)
    );
    let waited = waits
        .into_inner()
        .unwrap()
        .and_then(FutureExt::now_or_never);
    assert!(waited.is_none(), "there was room: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_only_appends_and_only_to_its_own_repository() {
    let desk = Desk::new().await;
    let (ada, eve) = (desk.learner("ada").await, desk.learner("eve").await);
    let mut pod = desk.pod(&ada, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "ada's").unwrap();
    pod.save(workspace.path()).await;
    let spy = desk.pod(&eve, 1).await;
    let before = support::tree::tree(&desk.repository(&pod.head));

    let name =
        |bytes: &[u8]| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes));
    let call = async |method: &str, path: &str, token: &str, body: &'static [u8]| {
        let method = method.parse().unwrap();
        let url = format!("http://vault{path}");
        let request = desk
            .client
            .request(method, url)
            .bearer_auth(token)
            .body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let (own, foreign) = (pod.token(), spy.token());
    let snapshot = pod.head.snapshot_id.clone().unwrap();
    let file = format!("/restic/ada/snapshots/{snapshot}");
    let new = format!("/restic/ada/data/{}", name(b"new"));
    for (method, path, token, status) in [
        ("GET", file.as_str(), "", 401),
        ("GET", &file, "x.y.z", 401),
        ("GET", &file, &foreign, 403),
        ("GET", "/restic/ada/snapshots/", &foreign, 403),
        ("GET", "/v1/learners/ada/key", &foreign, 403),
        ("POST", &new, &foreign, 403),
        ("DELETE", &file, &own, 403),
        ("DELETE", "/restic/ada/config", &own, 403),
        ("POST", "/restic/ada/config", &own, 403),
        (
            "POST",
            &format!("/restic/ada/keys/{}", name(b"new")),
            &own,
            403,
        ),
        ("POST", &file, &own, 400),
        ("GET", "/restic/ada/data/..%2f..%2fstore.db", &own, 400),
        ("GET", "/restic/ada/snapshots/..%2f..%2fconfig", &own, 400),
        ("GET", "/restic/ada/etc/", &own, 404),
        ("GET", "/restic/..%2feve/config", &own, 403),
        ("GET", &new, &own, 404),
        ("GET", &file, &own, 200),
        ("HEAD", &file, &own, 200),
        ("HEAD", "/restic/ada/config", &own, 200),
    ] {
        assert_eq!(
            call(method, path, token, b"new").await,
            status,
            "{method} {path}"
        );
    }
    assert_eq!(support::tree::tree(&desk.repository(&pod.head)), before);

    assert_eq!(call("POST", &new, &own, b"new").await, 200);
    assert_eq!(call("POST", &new, &own, b"new").await, 200);
    assert_eq!(call("POST", &new, &own, b"other").await, 400);
    let lock = format!("/restic/ada/locks/{}", name(b"lock"));
    assert_eq!(call("POST", &lock, &own, b"lock").await, 200);
    assert_eq!(call("DELETE", &lock, &own, b"").await, 200);
    assert_eq!(call("GET", &lock, &own, b"").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_both_kinds_of_lists_are_as_the_protocol_says() {
    let desk = Desk::new().await;
    let pod = desk.pod(&desk.learner("ada").await, 1).await;
    let body: &[u8] = b"0123456789";
    let name = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body));
    let url = format!("http://vault/restic/ada/data/{name}");
    let put = desk.client.post(&url).bearer_auth(pod.token()).body(body);
    assert_eq!(put.send().await.unwrap().status(), 200);
    for (range, status, content) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=8-99", 206, "89"),
        ("bytes=10-12", 416, ""),
        ("bytes=5-3", 416, ""),
    ] {
        let get = desk
            .client
            .get(&url)
            .bearer_auth(pod.token())
            .header("range", range);
        let answer = get.send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.text().await.unwrap(), content, "{range}");
    }
    let list = "http://vault/restic/ada/data/";
    let names: Vec<String> = answer(desk.client.get(list).bearer_auth(pod.token()))
        .await
        .unwrap();
    assert_eq!(names, [name.as_str()]);
    let v2 = desk.client.get(list).bearer_auth(pod.token());
    let v2 = v2.header("accept", "application/vnd.x.restic.rest.v2");
    let files: serde_json::Value = answer(v2).await.unwrap();
    assert_eq!(files, serde_json::json!([{"name": name, "size": 10}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_learner_is_gone_with_its_key_and_every_object() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let mut pod = desk.pod(&ada, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "secret").unwrap();
    pod.save(workspace.path()).await;
    let access = desk.vault.restic_access(&ada).await.unwrap();
    let commit = pod.request(pod.head.snapshot_id.as_ref().unwrap());
    assert!(
        Path::new(&access.repository).join("config").exists()
            && Path::new(&access.password_file).exists()
    );

    assert!(
        desk.store
            .close_learner(&ada, support::now())
            .await
            .unwrap()
    );
    assert_eq!(pod.get::<Head>("head").await.unwrap_err().0, 403);
    for _ in 0..2 {
        desk.vault.erase(&ada).await.unwrap();
    }
    assert!(!Path::new(&access.repository).exists() && !Path::new(&access.password_file).exists());
    assert_eq!(pod.put_head(&commit).await.unwrap_err().0, 403);

    // An upload that was under way ends late.
    fs::create_dir_all(&access.repository).unwrap();
    fs::write(Path::new(&access.repository).join("config"), "late").unwrap();
    desk.vault.sweep_erased(support::now()).await.unwrap();
    assert!(!Path::new(&access.repository).exists());

    desk.learner("ada").await;
    assert_eq!(pod.get::<Head>("head").await, Err(conflict("stale_epoch")));
    let fresh = desk.pod(&ada, 1000).await;
    assert_eq!(
        (fresh.head.generation, &fresh.head.snapshot_id),
        (Generation(0), &None)
    );
    assert_ne!(fresh.head.repository, pod.head.repository);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_told_the_gaps_between_its_learners_last_five_messages_and_a_name_for_its_agent() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let first = desk.pod(&ada, 1).await.head;
    assert!(first.recent_gaps_seconds.is_empty());
    for (key, second) in [
        (1, 7),
        (2, 1000),
        (3, 1010),
        (4, 1030),
        (5, 1060),
        (6, 1100),
    ] {
        let message = NewMessage {
            learner: ada.clone(),
            message_id: MessageId(Uuid::from_u128(key)),
            turn_id: TurnId(Uuid::from_u128(100 + key)),
            idempotency_key: key.to_string(),
            body_hash: [0; 32],
            channel: "web".to_owned(),
            text: "hello".to_owned(),
            attachments: Vec::new(),
            max_queued: 20,
        };
        let at = Timestamp::from_second(1_783_591_200 + second).unwrap();
        desk.store.accept(&message, at).await.unwrap();
    }
    let second = desk.pod(&ada, 2).await.head;
    assert_eq!(second.recent_gaps_seconds, [10, 20, 30, 40]);
    let bob = desk.learner("bob").await;
    let other = desk.pod(&bob, 1).await.head.opaque_learner;
    assert_eq!(second.opaque_learner, first.opaque_learner);
    assert!(!first.opaque_learner.is_empty() && other != first.opaque_learner);
}
