//! What the store says of objects, compared with those that are there: each fault is named, whose it is, and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::fs;

use carrel_vault::{Objects, compare};
use support::{Desk, bucket, now};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_and_a_folder_say_of_each_other_is_compared() {
    let desk = Desk::new().await;
    let objects = Objects::local(desk.folder.path().join("objects")).unwrap();
    check(&desk, &objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_and_a_bucket_say_of_each_other_is_compared() {
    let test = "what_the_store_and_a_bucket_say_of_each_other_is_compared";
    let Some(desk) = Desk::on_s3(test).await else {
        return;
    };
    let server = desk.server.as_ref().unwrap();
    let objects = Objects::s3(&bucket(server)).await.unwrap();
    check(&desk, &objects).await;
}

async fn check(desk: &Desk, objects: &Objects) {
    let workspace = tempfile::tempdir().unwrap();
    let mut repositories = Vec::new();
    for name in ["ada", "bob", "fay"] {
        let mut pod = desk.pod(&desk.learner(name).await, 1).await;
        for turn in ["one", "two"] {
            fs::write(workspace.path().join("note"), format!("{turn} of {name}")).unwrap();
            pod.save(workspace.path()).await;
        }
        repositories.push((desk.repository(&pod.head), pod.head.snapshot_id.unwrap()));
    }
    let look = || async { compare(&desk.store, objects, now()).await.unwrap() };
    assert_eq!(look().await, [""; 0]);

    let (ada, newest) = &repositories[0];
    let ada = ada.join("snapshots");
    let away = tempfile::tempdir().unwrap();
    let names = fs::read_dir(&ada).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names.collect::<Vec<_>>() {
        support::tree::copy(&ada.join(&name), &away.path().join(&name));
        fs::remove_file(ada.join(&name)).unwrap();
        let found = look().await;
        let which = if name == newest.as_str() {
            "its newest"
        } else {
            "an older"
        };
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("ada: {which} snapshot is not")),
            "{found:?}"
        );
        assert!(found[0].ends_with(&name), "{found:?}");
        support::tree::copy(&away.path().join(&name), &ada.join(&name));
    }

    let bob = "bob".parse().unwrap();
    let row = desk.store.learner(&bob, now()).await.unwrap().unwrap();
    desk.store.destroy_key(&bob, row.repository).await.unwrap();
    assert_eq!(look().await, ["bob: it has snapshots, and no data key"]);
    let fay = "fay".parse().unwrap();
    let row = desk.store.learner(&fay, now()).await.unwrap().unwrap();
    desk.store.close_learner(&fay, now()).await.unwrap();
    desk.store.destroy_key(&fay, row.repository).await.unwrap();
    let told = "one that is being erased contradicts nothing";
    assert_eq!(look().await.len(), 1, "{told}");

    let (stray, _) = &repositories[1];
    let nobodys = "0190a5d4-7a3b-7000-8000-00000000abcd";
    support::tree::copy(stray, &stray.with_file_name(nobodys));
    let found = look().await;
    assert!(
        found.contains(&format!("repository {nobodys}: it is nobody's")),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "{found:?}");
}
