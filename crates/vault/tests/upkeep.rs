//! Stock restic, retention, prune and merge, the order of writes, rotation, and the figures.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

use carrel_core::learner::{DesiredState, LearnerState, Status};
use carrel_core::{Epoch, Generation};
use carrel_protocol::vault::ResticAccess;
use carrel_vault::{Error, Keyring, Objects};
use object_store::local::LocalFileSystem;
use support::faults::{Faulty, Switch};
use support::{Desk, tree};

fn restic(access: &ResticAccess, arguments: &[&str]) -> Output {
    let output = Command::new("restic")
        .args(arguments)
        .arg("--no-cache")
        .env("RESTIC_REPOSITORY", &access.repository)
        .env("RESTIC_PASSWORD_FILE", &access.password_file)
        .output()
        .expect("restic runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "restic {arguments:?}: {told}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_opens_checks_and_restores_a_repository() {
    if Command::new("restic").arg("version").output().is_err() {
        let required = std::env::var_os("CARREL_REQUIRE").unwrap_or_default();
        assert!(
            !required
                .to_string_lossy()
                .split(',')
                .any(|item| item == "restic"),
            "restic is required and absent"
        );
        println!(
            "SKIP stock_restic_opens_checks_and_restores_a_repository: restic is not installed \
             ('apt-get install restic')"
        );
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
    restic(&access, &["check", "--read-data"]);
    let snapshots = restic(&access, &["snapshots", "--json"]);
    let snapshots: serde_json::Value = serde_json::from_slice(&snapshots.stdout).unwrap();
    assert_eq!(snapshots.as_array().unwrap().len(), 3);
    let target = tempfile::tempdir().unwrap();
    let head = pod.head.snapshot_id.as_ref().unwrap().as_str();
    restic(
        &access,
        &["restore", head, "--target", target.path().to_str().unwrap()],
    );
    assert_eq!(tree::tree(target.path()), tree::tree(workspace.path()));
    // Restic's own backup into it does not disturb us.
    restic(&access, &["backup", workspace.path().to_str().unwrap()]);
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_lets_old_generations_go_and_merges_indexes_while_the_learner_sleeps() {
    let desk = Desk::new().await;
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

    let unfinished = index.join(format!("{}#1", "ab".repeat(32)));
    fs::write(&unfinished, "half of an upload").unwrap();
    let done = desk.vault.maintain(&ada).await.unwrap();
    assert!(unfinished.exists(), "it may be under way");
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_hours(1);
    fs::File::options()
        .write(true)
        .open(&unfinished)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
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
    let head = desk.vault.restore(&ada, &older).await.unwrap();
    assert_eq!(
        (head.generation, head.snapshot),
        (Generation(35), Some(older))
    );
    let mut pod = desk.pod(&ada, 2).await;
    assert_eq!(tree::tree(pod.restore().await.path()), states[31]);
    pod.save(workspace.path()).await;
    assert_eq!(tree::tree(pod.restore().await.path()), states[33]);
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
