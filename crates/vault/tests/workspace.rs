//! What of a workspace comes back, what is left out, and what is refused.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_sidecar::snapshot::{Error, ErrorKind, LimitKind};
use support::{Desk, Pod, tree};
use tokio::time::timeout;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_comes_back_as_it_was() {
    let desk = Desk::new().await;
    let ada = desk.learner("ada").await;
    let mut pod = desk.pod(&ada, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let root = workspace.path();
    fs::create_dir_all(root.join("deep/er/and deeper")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("empty.txt"), "").unwrap();
    fs::write(root.join("deep/er/and deeper/x"), vec![7; 3_000_000]).unwrap();
    fs::write(root.join("new\nline \"quoted\" \\n \u{7}\u{1b}ü"), "a").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), "b").unwrap();
    symlink("/etc/passwd", root.join("outside")).unwrap();
    symlink("deep/er", root.join("inside")).unwrap();
    symlink(OsStr::from_bytes(b"\xff nowhere"), root.join("dangling")).unwrap();
    fs::write(root.join("tool"), "#!/bin/sh").unwrap();
    chmod(&root.join("tool"), 0o755);
    fs::write(root.join("one"), "twice").unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    chmod(&root.join("deep/er"), 0o500);
    for round in 1..=3 {
        fs::write(root.join("count"), round.to_string()).unwrap();
        pod.save(root).await;
        let restored = pod.restore().await;
        let mut expected = tree::tree(root);
        // Folders come back writable by their owner, so that they can be moved and removed.
        let folder = expected.get_mut(Path::new("deep/er")).unwrap();
        assert_eq!(
            std::mem::replace(folder, "folder 700".to_owned()),
            "folder 500"
        );
        assert_eq!(tree::tree(restored.path()), expected, "round {round}");
    }
    chmod(&root.join("deep/er"), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_workspace_comes_back_empty() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    assert_eq!(pod.save(workspace.path()).await.files, 0);
    assert!(tree::tree(pod.restore().await.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn special_files_setuid_excluded_names_and_our_own_folder_are_left_out() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("bob").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let root = workspace.path();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(root.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    fs::write(root.join("kept"), "k").unwrap();
    fs::write(root.join("setuid"), "s").unwrap();
    chmod(&root.join("setuid"), 0o6755);
    for left_out in [
        "node_modules",
        "a/node_modules",
        ".cache",
        ".carrel-restore",
    ] {
        fs::create_dir_all(root.join(left_out)).unwrap();
        fs::write(root.join(left_out).join("x"), "x").unwrap();
    }
    let outcome = pod.save(root).await;
    assert_eq!((outcome.skipped_special, outcome.files), (2, 2));
    let restored = pod.restore().await;
    let found = tree::tree(restored.path());
    let names: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, ["a", "kept", "setuid"]);
    assert!(found[Path::new("setuid")].starts_with("file 755"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_over_its_limits_is_refused_and_the_last_snapshot_stays() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let root = workspace.path();
    fs::write(root.join("good"), "good").unwrap();
    pod.save(root).await;

    let refuse = async |what: &str,
                        wanted: LimitKind,
                        limit_of: fn(&mut carrel_sidecar::snapshot::Limits) -> &mut u64,
                        limit: u64| {
        let mut snapshots = pod.snapshots();
        *limit_of(&mut snapshots.limits) = limit;
        let error = snapshots.backup(root, None).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Workspace);
        assert!(
            matches!(error, Error::Limit { what, limit: told } if what == wanted && told == limit),
            "{what}: {error}"
        );
    };
    // A sparse file counts by its length.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    refuse(
        "bytes",
        LimitKind::Bytes,
        |limits| &mut limits.max_bytes,
        1 << 30,
    )
    .await;
    fs::remove_file(root.join("sparse")).unwrap();
    for file in 0..50 {
        fs::write(root.join(format!("many-{file}")), "").unwrap();
    }
    refuse(
        "files",
        LimitKind::Files,
        |limits| &mut limits.max_files,
        50,
    )
    .await;
    fs::create_dir_all(root.join("long/".repeat(40))).unwrap();
    refuse(
        "path",
        LimitKind::Path,
        |limits| &mut limits.max_path_bytes,
        190,
    )
    .await;

    let restored = pod.restore().await;
    assert_eq!(
        fs::read_to_string(restored.path().join("good")).unwrap(),
        "good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_too_deep_to_name_is_refused() {
    let desk = Desk::new().await;
    let pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .args([
            "-c",
            "n=0; while [ $n -lt 3000 ]; do mkdir dd && cd dd || exit 0; n=$((n+1)); done",
        ])
        .current_dir(workspace.path())
        .status();
    assert!(made.unwrap().success());
    let refused = pod.snapshots().backup(workspace.path(), None).await;
    assert!(
        matches!(
            refused,
            Err(Error::Limit {
                what: LimitKind::Path,
                ..
            })
        ),
        "{refused:?}"
    );
    let removed = Command::new("rm")
        .arg("-rf")
        .arg(workspace.path().join("dd"))
        .status();
    assert!(removed.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_only_into_an_empty_workspace_and_clears_what_an_earlier_one_left() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("note"), "n").unwrap();
    let snapshot = pod.save(workspace.path()).await.snapshot_id;

    let target = tempfile::tempdir().unwrap();
    fs::create_dir_all(target.path().join(".carrel-restore/half")).unwrap();
    pod.snapshots()
        .restore(&snapshot, target.path())
        .await
        .unwrap();
    assert_eq!(tree::tree(target.path()), tree::tree(workspace.path()));
    let again = pod.snapshots().restore(&snapshot, target.path()).await;
    assert!(matches!(again, Err(Error::NotEmpty)), "{again:?}");
}

/// As on a full disk, where a folder cannot be made either.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_in_which_a_folder_cannot_be_made_is_not_taken_for_damage() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let (name, longest) = ("d".repeat(200), 4096);
    let deep = |root: &Path, levels| (0..levels).fold(root.to_owned(), |path, _| path.join(&name));
    fs::create_dir_all(deep(workspace.path(), 4)).unwrap();
    let snapshot = pod.save(workspace.path()).await.snapshot_id;

    let place = tempfile::tempdir().unwrap();
    let target = deep(place.path(), longest / name.len() - 3);
    fs::create_dir_all(&target).unwrap();
    let refused = pod.snapshots().restore(&snapshot, &target).await;
    assert!(matches!(refused, Err(Error::Workspace(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change_costs_little() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 5);
    let first = pod.save(workspace.path()).await;
    tree::one_turn(workspace.path(), 1);
    let second = pod.save(workspace.path()).await;
    let third = pod.save(workspace.path()).await;
    assert!(first.total_bytes > 9_000_000, "{first:?}");
    assert!(second.new_bytes < 200_000, "{second:?}");
    assert_eq!(third.new_bytes, 0, "{third:?}");
    assert_eq!(Pod::limits().max_bytes, 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parameters_are_read_once_by_a_snapshot_and_once_by_its_commit() {
    let (desk, switch) = Desk::faulty().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 5);
    pod.save(workspace.path()).await;
    tree::one_turn(workspace.path(), 1);
    let read = || std::mem::take(&mut *switch.read.lock().unwrap());
    read();
    let snapshot = pod.backup(workspace.path()).await;
    let by_snapshot = read();
    pod.put_head(&pod.request(&snapshot.snapshot_id))
        .await
        .unwrap();
    for places in [by_snapshot, read()] {
        let parameters = places.iter().filter(|place| place.ends_with("/config"));
        assert_eq!(parameters.count(), 1, "{places:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_read_together_by_a_snapshot_and_by_its_commit() {
    /// One a turn, and more than a small machine has processors.
    const TURNS: usize = 8;
    let (desk, switch) = Desk::faulty().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    let write = |turn: usize| fs::write(workspace.path().join("note"), turn.to_string()).unwrap();
    for turn in 1..=TURNS {
        write(turn);
        pod.save(workspace.path()).await;
    }
    write(TURNS + 1);
    let together = |indexes| {
        switch.indexes.send_replace(0);
        switch.indexes_together.store(indexes, Ordering::SeqCst);
    };
    let soon = Duration::from_secs(30);
    together(TURNS);
    let snapshot = timeout(soon, pod.backup(workspace.path())).await;
    let commit = pod.request(&snapshot.expect("a snapshot").snapshot_id);
    together(TURNS + 1);
    let committed = timeout(soon, pod.put_head(&commit)).await;
    committed.expect("a commit").unwrap();
}
