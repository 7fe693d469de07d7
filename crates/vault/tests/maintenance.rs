//! Looking after sleeping learners, as a running vault does it.

mod support;

use carrel_testkit::until;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::learner::{DesiredState, Status};
use carrel_core::{Epoch, LearnerId};
use carrel_vault::Objects;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use support::Desk;
use support::faults::{Faulty, Switch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// A desk on a storage that can stall.
async fn desk() -> (Desk, Arc<Switch>) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("objects");
    fs::create_dir(&root).expect("made");
    let switch = Arc::new(Switch::default());
    let objects = Objects::new(Arc::new(Faulty {
        inner: LocalFileSystem::new_with_prefix(&root).expect("a folder"),
        switch: Arc::clone(&switch),
    }));
    (Desk::with(folder, objects).await, switch)
}

/// A learner who slept after five turns of one day, of which the last three are kept: the repository's place.
async fn five_turns(desk: &Desk, learner: &LearnerId) -> Path {
    let workspace = tempfile::tempdir().expect("a folder");
    let mut pod = desk.pod(learner, 1).await;
    for turn in 0..5 {
        fs::write(workspace.path().join("turn"), format!("{learner} {turn}")).expect("written");
        pod.save(workspace.path()).await;
    }
    let (never, slept) = (
        Status::default(),
        Status {
            epoch: Epoch(1),
            ..Status::default()
        },
    );
    let put = desk
        .store
        .put_status(learner, &never, &slept, support::now());
    assert!(put.await.expect("a store"));
    Path::from(pod.head.repository.to_string())
}

/// A learner's rows go, so many seconds after 1970; the objects are still there.
async fn erased(desk: &Desk, learner: &LearnerId, second: i64) {
    let time = jiff::Timestamp::from_second(second).expect("a time");
    desk.store
        .close_learner(learner, time)
        .await
        .expect("closed");
    desk.store
        .erase_learner(learner, time)
        .await
        .expect("erased");
}

/// Something about a learner changes; whether the vault has looked after the learner.
async fn looked_after(desk: &Desk, learner: &LearnerId) -> bool {
    for state in [DesiredState::Asleep, DesiredState::Auto] {
        desk.store
            .set_desired_state(learner, state)
            .await
            .expect("set");
    }
    desk.vault.list(learner).await.expect("listed").len() == 3
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_stalls_for_one_learner_holds_up_neither_another_nor_a_stop() {
    let (desk, switch) = desk().await;
    let (ada, bob) = (desk.learner("ada").await, desk.learner("bob").await);
    let stalled = five_turns(&desk, &ada).await;
    five_turns(&desk, &bob).await;
    *switch.stalled.lock().unwrap() = Some(stalled);

    let cancel = CancellationToken::new();
    let (vault, stop) = (desk.vault.clone(), cancel.clone());
    let running = TaskTracker::new().spawn(async move { vault.run(stop).await });
    until("both are being looked after", || async {
        looked_after(&desk, &ada).await;
        looked_after(&desk, &bob).await && switch.has_stalled.load(Ordering::SeqCst)
    })
    .await;
    cancel.cancel();
    timeout(LONG, running)
        .await
        .expect("a stop waits for nobody")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_erased_learner_left_holds_up_nobody() {
    let (desk, switch) = desk().await;
    let (ada, bob) = (desk.learner("ada").await, desk.learner("bob").await);
    let stalled = five_turns(&desk, &ada).await;
    five_turns(&desk, &bob).await;
    erased(&desk, &ada, 0).await;
    *switch.stalled.lock().unwrap() = Some(stalled);

    let cancel = CancellationToken::new();
    let (vault, stop) = (desk.vault.clone(), cancel.clone());
    let running = TaskTracker::new().spawn(async move { vault.run(stop).await });
    until("the rest of ada is being removed", || async {
        switch.has_stalled.load(Ordering::SeqCst)
    })
    .await;
    until("bob is looked after", || looked_after(&desk, &bob)).await;
    cancel.cancel();
    timeout(LONG, running)
        .await
        .expect("a stop waits for nobody")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_of_one_erased_learner_keeps_no_other() {
    let (desk, switch) = desk().await;
    let (ada, bob) = (desk.learner("ada").await, desk.learner("bob").await);
    let of_ada = five_turns(&desk, &ada).await;
    let of_bob = five_turns(&desk, &bob).await;
    erased(&desk, &ada, 0).await;
    erased(&desk, &bob, 1).await;
    *switch.unreadable.lock().unwrap() = Some(of_ada.clone());

    let objects = |place: &Path| {
        let folder = desk.folder.path().join("objects").join(place.as_ref());
        support::tree::files(&folder).len()
    };
    desk.vault
        .sweep_erased(support::now())
        .await
        .expect_err("the objects of one cannot be listed");
    assert!(objects(&of_ada) > 0);
    assert_eq!(objects(&of_bob), 0);
    *switch.unreadable.lock().unwrap() = None;
    desk.vault.sweep_erased(support::now()).await.unwrap();
    assert_eq!(objects(&of_ada), 0);
}
