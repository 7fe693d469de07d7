//! A worker killed at any moment: the repository stays valid, the head stays, the next snapshot is whole.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::{Desk, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_moment_leaves_a_valid_repository_and_the_head() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 1);
    pod.save(workspace.path()).await;
    let committed = tree::tree(workspace.path());
    let start = Instant::now();
    tree::one_turn(workspace.path(), 1000);
    pod.backup(workspace.path()).await;
    let usual = start.elapsed();
    let mut killed = 0;
    for round in 0..40_u32 {
        for turn in 0..4 {
            tree::one_turn(workspace.path(), u64::from(round) * 10 + turn);
        }
        fs::write(
            workspace.path().join("memory.db"),
            vec![u8::try_from(round).unwrap(); 1 << 20],
        )
        .unwrap();
        let snapshots = pod.snapshots();
        let backup = snapshots.backup(workspace.path(), pod.head.snapshot_id.as_ref());
        // Dropping the future kills the worker with SIGKILL.
        let timeout = usual.mul_f64(0.02 + 0.04 * f64::from(round));
        killed += u32::from(tokio::time::timeout(timeout, backup).await.is_err());
        if round % 10 == 9 {
            assert_eq!(
                tree::tree(pod.restore().await.path()),
                committed,
                "round {round}"
            );
            let verified = desk.vault.verify(&pod.learner, None).await.unwrap();
            assert!(verified.intact, "round {round}: {verified:?}");
        }
    }
    println!("{killed} of 40 were killed");
    assert!(killed >= 10, "only {killed} were killed");
    assert_eq!(
        pod.get::<carrel_protocol::vault::Head>("head")
            .await
            .unwrap(),
        pod.head
    );
    pod.save(workspace.path()).await;
    assert_eq!(
        tree::tree(pod.restore().await.path()),
        tree::tree(workspace.path())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_half_way_leaves_nothing_that_looks_like_a_workspace() {
    let desk = Desk::new().await;
    let mut pod = desk.pod(&desk.learner("ada").await, 1).await;
    let workspace = tempfile::tempdir().unwrap();
    tree::ten_megabytes(workspace.path(), 2);
    let snapshot = pod.save(workspace.path()).await.snapshot_id;
    let target = tempfile::tempdir().unwrap();
    let mut partial = 0;
    for round in 0..20_u64 {
        let snapshots = pod.snapshots();
        let restore = snapshots.restore(&snapshot, target.path());
        let timeout = Duration::from_millis(5 + round * 6);
        if tokio::time::timeout(timeout, restore).await.is_ok() {
            break;
        }
        let top: Vec<_> = fs::read_dir(target.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        partial += u32::from(top == [".carrel-restore"]);
        if top.iter().any(|name| name != ".carrel-restore") {
            // Killed while renaming: the incarnation is over, and no agent was started.
            break;
        }
    }
    println!("{partial} were killed with a part restored");
    assert!(partial > 0, "none was killed in the middle");
    let fresh = pod.restore().await;
    assert_eq!(tree::tree(fresh.path()), tree::tree(workspace.path()));
}
