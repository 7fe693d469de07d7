//! Looking after sleeping learners, as a running vault does it.

mod support;

use carrel_testkit::until;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::learner::DesiredState;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_stalls_for_one_learner_holds_up_neither_another_nor_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("objects");
    fs::create_dir(&root).unwrap();
    let switch = Arc::new(Switch::default());
    let objects = Objects::new(Arc::new(Faulty {
        inner: LocalFileSystem::new_with_prefix(&root).unwrap(),
        switch: Arc::clone(&switch),
    }));
    let desk = Desk::with(folder, objects).await;
    let (ada, bob) = (desk.learner("ada").await, desk.learner("bob").await);
    let workspace = tempfile::tempdir().unwrap();
    for learner in [&ada, &bob] {
        let mut pod = desk.pod(learner, 1).await;
        for turn in 0..5 {
            fs::write(workspace.path().join("turn"), format!("{learner} {turn}")).unwrap();
            pod.save(workspace.path()).await;
        }
        if *learner == ada {
            let repository = Path::from(pod.head.repository.to_string());
            *switch.stalled.lock().unwrap() = Some(repository);
        }
    }

    let cancel = CancellationToken::new();
    let (vault, stop) = (desk.vault.clone(), cancel.clone());
    let running = TaskTracker::new().spawn(async move { vault.run(stop).await });
    until("both are being looked after", || async {
        for learner in [&ada, &bob] {
            // Something about them changes until the vault, once it runs, has heard of it.
            for state in [DesiredState::Asleep, DesiredState::Auto] {
                desk.store.set_desired_state(learner, state).await.unwrap();
            }
        }
        // Of one day, the last three are kept.
        let is_bob_done = desk.vault.list(&bob).await.unwrap().len() == 3;
        is_bob_done && switch.has_stalled.load(Ordering::SeqCst)
    })
    .await;
    cancel.cancel();
    timeout(LONG, running)
        .await
        .expect("a stop waits for nobody")
        .unwrap();
}
