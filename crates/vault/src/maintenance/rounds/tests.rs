//! A vault with sleeping learners. Whether one was looked after shows by an unfinished upload of long ago: it goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carrel_protocol::token::Verifier;
use carrel_store::learners::NewLearner;
use carrel_store_sqlite::SqliteStore;
use carrel_testkit::until;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::broadcast::{self, Sender};

use super::*;
use crate::{Keyring, Objects, Options};

struct School {
    folder: TempDir,
    store: Arc<SqliteStore>,
    vault: Vault,
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1_000_000)
}

fn id(name: &str) -> LearnerId {
    name.parse().unwrap()
}

impl School {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let store = Arc::new(SqliteStore::open(&path.join("store.db")).await.unwrap());
        let vault = Vault::new(Options {
            store: Arc::<SqliteStore>::clone(&store),
            objects: Objects::local(path.join("objects")).unwrap(),
            keyring: Keyring::read_or_create(&path.join("kek")).unwrap(),
            verifier: Verifier::new(&[]).unwrap(),
            gateways: Verifier::new(&[]).unwrap(),
            password_folder: path.join("restic"),
            clock: Arc::new(now),
            snapshots: carrel_telemetry::Snapshots::default(),
        });
        Self {
            folder,
            store,
            vault,
        }
    }

    /// A learner's unfinished upload, made anew; the learner, too, when it is not there.
    async fn unfinished(&self, name: &str) -> PathBuf {
        let store = self.vault.store();
        let new = NewLearner {
            id: id(name),
            class: "default".parse().unwrap(),
            aliases: Vec::new(),
        };
        store.create_learner(&new, now()).await.unwrap();
        let row = store.learner(&new.id, now()).await.unwrap().unwrap();
        let index = format!("objects/{}/index", row.repository);
        let index = self.folder.path().join(index);
        fs::create_dir_all(&index).unwrap();
        let file = index.join(format!("{}#1", "ab".repeat(32)));
        fs::write(&file, "half of an upload").unwrap();
        file
    }
}

/// In a channel for one change: the first is missed. The receiver does not run between them on this thread.
fn miss_some(sender: &Sender<LearnerId>) {
    for nobody in ["nobody", "noone"] {
        sender.send(id(nobody)).unwrap();
    }
}

async fn gone(file: &Path) {
    until("an unfinished upload is removed", || async {
        !file.exists()
    })
    .await;
}

async fn heard(sender: &Sender<LearnerId>) {
    until("a change is heard", || async { sender.is_empty() }).await;
}

fn pace(all: Duration) -> Pace {
    Pace {
        gather: Duration::ZERO,
        all,
    }
}

#[tokio::test]
async fn when_changes_were_missed_everybody_is_looked_at() {
    let school = School::new().await;
    let mut unfinished = Vec::new();
    for number in 0..=PAGE {
        unfinished.push(school.unfinished(&format!("learner-{number}")).await);
    }
    let (sender, changes) = broadcast::channel(1);
    miss_some(&sender);
    let everybody = async {
        for file in &unfinished {
            gone(file).await;
        }
    };
    tokio::select! {
        () = school.vault.look_after(changes, Due::new(pace(Duration::ZERO))) => unreachable!("its sender is there"),
        () = everybody => {}
    }
}

#[tokio::test]
async fn changes_are_heard_while_everybody_is_looked_at_and_that_is_not_done_again_at_once() {
    let school = School::new().await;
    let (ada, bob, cyd) = (
        school.unfinished("ada").await,
        school.unfinished("bob").await,
        school.unfinished("cyd").await,
    );
    let (sender, changes) = broadcast::channel(1);
    let script = async {
        let long = school.vault.exclusive(&id("ada")).await;
        miss_some(&sender);
        gone(&bob).await;
        gone(&cyd).await;
        assert!(ada.exists(), "her turn is long");
        for _ in 0..3 {
            sender.send(id("nobody")).unwrap();
            heard(&sender).await;
        }
        school.unfinished("bob").await;
        school.unfinished("cyd").await;
        sender.send(id("bob")).unwrap();
        heard(&sender).await;
        drop(long);
        gone(&ada).await;
        gone(&bob).await;
        assert!(
            cyd.exists(),
            "nothing changed of her, and nothing was missed"
        );

        miss_some(&sender);
        heard(&sender).await;
        // A second time: by then the round is over in which everybody would have been.
        for _ in 0..2 {
            school.unfinished("bob").await;
            sender.send(id("bob")).unwrap();
            gone(&bob).await;
        }
        assert!(cyd.exists(), "everybody was looked at not long ago");
    };
    tokio::select! {
        () = school.vault.look_after(changes, Due::new(pace(Duration::from_hours(1)))) => unreachable!("its sender is there"),
        () = script => {}
    }
}

#[tokio::test]
async fn everybody_is_looked_at_again_when_it_is_time() {
    let school = School::new().await;
    let ada = school.unfinished("ada").await;
    let (sender, changes) = broadcast::channel(1);
    let script = async {
        for _ in 0..2 {
            school.unfinished("ada").await;
            miss_some(&sender);
            gone(&ada).await;
        }
    };
    tokio::select! {
        () = school.vault.look_after(changes, Due::new(pace(Duration::from_millis(1)))) => unreachable!("its sender is there"),
        () = script => {}
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_asked_another_time() {
    let school = School::new().await;
    school.unfinished("ada").await;
    let mut due = Due::new(PACE);
    due.is_any_missed = true;
    due.begin_all();
    assert!(due.all.is_some() && !due.is_any_missed);
    school.store.close().await;
    assert_eq!(school.vault.page(&mut due).await, []);
    assert!(due.all.is_none(), "it is given up");
    assert!(due.is_any_missed, "and not forgotten");
    due.begin_all();
    assert!(due.all.is_none(), "for a time");
}
