//! Stock restic, retention, prune and merge, the order of writes, rotation, and the figures.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use carrel_core::learner::{DesiredState, LearnerState, Status};
use carrel_core::{Epoch, Generation};
use carrel_vault::{Error, Keyring, Objects};
use object_store::local::LocalFileSystem;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use support::faults::{Faulty, Switch};
use support::{Desk, restic, tree};

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_opens_checks_and_restores_a_repository() {
    if !restic::is_there("stock_restic_opens_checks_and_restores_a_repository") {
        return;
    }
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 3);
    fs::write(workspace.path().join("a\nb \"c\" \\ ü"), "odd name").unwrap();
    std::os::unix::fs::symlink("unit-1/note-1.md", workspace.path().join("link")).unwrap();
    for turn in 0..3 {
        tree::one_turn(workspace.path(), turn);
        pod.save(workspace.path()).await;
    }
    let access = desk.vault.restic_access(&pod.learner).await.unwrap();
    assert_eq!(
        desk.vault.restic_access(&pod.learner).await.unwrap(),
        access
    );
    restic::agrees(&pod).await;
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
    // Restic's own backup into it does not disturb us.
    let backup = restic::run(&access, &["backup", workspace.path().to_str().unwrap()]);
    assert!(backup.status.success(), "{backup:?}");
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_lets_old_generations_go_and_merges_indexes_while_the_learner_sleeps() {
    check_retention(Desk::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_retention_lets_old_generations_go_and_merges_indexes() {
    let test = "on_s3_retention_lets_old_generations_go_and_merges_indexes";
    if let Some(desk) = Desk::on_s3(test).await {
        check_retention(desk).await;
    }
}

async fn check_retention(desk: Desk) {
    let ada = desk.learner("ada").await;
    let mut pod = desk.pod(&ada, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let mut states = Vec::new();
    for turn in 0..34_u32 {
        fs::write(
            workspace.path().join(format!("turn-{turn}")),
            turn.to_string().repeat(4000),
        )
        .unwrap();
        pod.save(workspace.path()).await;
        states.push(tree::tree(workspace.path()));
    }
    let index = desk.repository(&pod.head).join("index");
    assert_eq!(tree::files(&index).len(), 34);

    let asleep = Status::default();
    let awake = Status {
        epoch: Epoch(1),
        state: LearnerState::Ready,
        ..Status::default()
    };
    assert!(
        desk.store
            .put_status(&ada, &asleep, &awake, support::now())
            .await
            .unwrap()
    );
    assert!(matches!(desk.vault.maintain(&ada).await, Err(Error::Awake)));
    let slept = Status {
        epoch: Epoch(1),
        ..Status::default()
    };
    assert!(
        desk.store
            .put_status(&ada, &awake, &slept, support::now())
            .await
            .unwrap()
    );
    desk.store
        .set_desired_state(&ada, DesiredState::Asleep)
        .await
        .unwrap();

    // A server has its own way with these.
    let unfinished = index.join(format!("{}#1", "ab".repeat(32)));
    if desk.server.is_none() {
        fs::write(&unfinished, "half of an upload").unwrap();
    }
    let done = desk.vault.maintain(&ada).await.unwrap();
    if desk.server.is_none() {
        // It may be under way, until it is old.
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_hours(1);
        let file = fs::File::options().write(true).open(&unfinished);
        file.unwrap().set_modified(long_ago).unwrap();
    }
    // All of one day: the last three.
    assert_eq!((done.expired, done.removed, done.pruned), (31, 31, true));
    assert!(tree::files(&index).len() <= 3, "{:?}", tree::files(&index));
    let listed = desk.vault.list(&ada).await.unwrap();
    let kept: Vec<_> = listed.iter().map(|row| row.generation.0).collect();
    assert_eq!(kept, [34, 33, 32]);
    assert!(desk.vault.verify(&ada, None).await.unwrap().intact);
    assert_eq!(tree::tree(pod.restore().await.path()), states[33]);
    let again = desk.vault.maintain(&ada).await.unwrap();
    assert!(!unfinished.exists());
    assert_eq!((again.expired, again.removed, again.pruned), (0, 0, false));

    let older = listed[2].snapshot_id.clone();
    let head = desk.vault.restore(&ada, &older, None).await.unwrap();
    assert_eq!(
        (head.generation, head.snapshot),
        (Generation(35), Some(older))
    );
    let mut pod = desk.pod(&ada, 2).await;
    // The row says asleep still, of the incarnation before.
    assert!(matches!(desk.vault.maintain(&ada).await, Err(Error::Awake)));
    assert_eq!(tree::tree(pod.restore().await.path()), states[31]);
    pod.save(workspace.path()).await;
    assert_eq!(tree::tree(pod.restore().await.path()), states[33]);
    if restic::is_there("retention") {
        restic::agrees(&pod).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_written_once_and_before_the_head_moves() {
    let folder = tempfile::tempdir().unwrap();
    let switch = Arc::new(Switch::default());
    fs::create_dir(folder.path().join("objects")).unwrap();
    let inner = LocalFileSystem::new_with_prefix(folder.path().join("objects")).unwrap();
    let objects = Objects::new(Arc::new(Faulty {
        inner: inner.with_fsync(true),
        switch: Arc::clone(&switch),
    }));
    let desk = Desk::with(folder, objects).await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    for turn in 1..=3_u64 {
        fs::write(
            workspace.path().join("note"),
            format!("{turn}").repeat(9000),
        )
        .unwrap();
        let written = || switch.written.lock().unwrap().len();
        let before = written();
        let snapshot = pod.backup(workspace.path()).await.snapshot_id;
        let durable = written();
        let kinds: Vec<_> = {
            let list = switch.written.lock().unwrap();
            let kind = |(place, _): &(String, bool)| place.split('/').nth(1).unwrap().to_owned();
            list[before..].iter().map(kind).collect()
        };
        // What refers comes after what it refers to.
        assert_eq!(kinds, ["data", "data", "index", "snapshots"], "turn {turn}");
        let head: carrel_protocol::vault::Head = pod.get("head").await.unwrap();
        assert_eq!(
            head.generation.0,
            turn - 1,
            "the head moves by the commit alone"
        );
        let request = pod.request(&snapshot);
        let answer = pod.put_head(&request).await.unwrap();
        assert_eq!(written(), durable, "a commit writes no object");
        (pod.head.generation, pod.head.snapshot_id) = (answer.generation, Some(answer.snapshot_id));
    }
    let list = switch.written.lock().unwrap();
    assert!(list.iter().all(|(_, create_only)| *create_only));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_on_their_way_together_and_what_names_them_comes_after_all_of_them() {
    let (desk, switch) = Desk::faulty().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(4);
    // Three packs of eight mebibytes, and none of them arrives before all are begun.
    let noise = tree::noise(&mut random, 25 << 20);
    fs::write(workspace.path().join("film"), noise).unwrap();
    switch.together.store(3, Ordering::SeqCst);
    pod.save(workspace.path()).await;
    {
        let written = switch.written.lock().unwrap();
        let kind = |(place, _): &(String, bool)| place.split('/').nth(1).unwrap().to_owned();
        let kinds: Vec<_> = written
            .iter()
            .map(kind)
            .filter(|kind| kind != "config")
            .collect();
        let packs = kinds.iter().take_while(|kind| *kind == "data").count();
        assert!(packs >= 4, "{kinds:?}");
        assert_eq!(kinds[packs..], ["index", "snapshots"]);
    }
    let restored = pod.restore().await;
    assert_eq!(tree::tree(restored.path()), tree::tree(workspace.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_wraps_every_key_anew_and_repositories_still_open() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let mut pod = desk.pod(&ada, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "n").unwrap();
    pod.save(workspace.path()).await;
    assert_eq!(desk.vault.rewrap_keys().await.unwrap().rewrapped, 0);

    let path = desk.folder.path();
    let old = fs::read_to_string(path.join("kek")).unwrap();
    Keyring::read_or_create(&path.join("new")).unwrap();
    let new = fs::read_to_string(path.join("new")).unwrap();
    let vault = |text: &str| {
        fs::write(path.join("new"), text).unwrap();
        carrel_vault::Vault::new(carrel_vault::Options {
            store: Arc::clone(&desk.store),
            objects: Objects::local(path.join("objects")).unwrap(),
            keyring: Keyring::read(&path.join("new")).unwrap(),
            verifier: carrel_protocol::token::Verifier::new(&[]).unwrap(),
            gateways: carrel_protocol::token::Verifier::new(&[]).unwrap(),
            password_folder: path.join("restic"),
            clock: Arc::new(support::now),
            snapshots: carrel_telemetry::Snapshots::default(),
        })
    };
    assert!(matches!(
        vault(&new).verify(&ada, None).await,
        Err(Error::Key(_))
    ));
    let without_the_old = vault(&new).rewrap_keys().await.unwrap();
    assert_eq!(without_the_old.failed, std::slice::from_ref(&ada));
    let both = vault(&format!("{new}{old}"));
    assert_eq!(both.rewrap_keys().await.unwrap().rewrapped, 1);
    assert_eq!(both.rewrap_keys().await.unwrap().left, 1);
    assert!(vault(&new).verify(&ada, None).await.unwrap().intact);
    assert!(matches!(
        desk.vault.verify(&ada, None).await,
        Err(Error::Key(_))
    ));
}

/// Prints the figures of one learner with ten megabytes; `--release --nocapture` for real ones.
#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_small_change_and_of_a_restore() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 9);
    let first = timed(async || drop(pod.save(workspace.path()).await)).await;
    let (mut backups, mut commits, mut restores) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..25 {
        tree::one_turn(workspace.path(), turn);
        let mut snapshot = None;
        backups.push(timed(async || snapshot = Some(pod.backup(workspace.path()).await)).await);
        let request = pod.request(&snapshot.unwrap().snapshot_id);
        let mut answer = None;
        commits.push(timed(async || answer = pod.put_head(&request).await.ok()).await);
        let answer = answer.unwrap();
        (pod.head.generation, pod.head.snapshot_id) = (answer.generation, Some(answer.snapshot_id));
    }
    for _ in 0..15 {
        restores.push(timed(async || drop(pod.restore().await)).await);
    }
    println!(
        "first {first:.1} ms; {}; {}; {}",
        spread("small change", backups),
        spread("commit", commits),
        spread("restore", restores)
    );
    assert!(Path::new(&desk.repository(&pod.head)).exists());
}

async fn timed(work: impl AsyncFnOnce()) -> f64 {
    let start = Instant::now();
    work().await;
    start.elapsed().as_secs_f64() * 1000.0
}

fn spread(name: &str, mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let last = times.len() - 1;
    format!(
        "{name} p50 {:.1} p90 {:.1} max {:.1} ms",
        times[last / 2],
        times[last * 9 / 10],
        times[last]
    )
}
