//! The file itself: its rights, its settings, and what its schema refuses whoever asks.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use carrel_core::event::Cursor;
use carrel_core::{NanoUsd, ReservationId};
use carrel_store::ledger::{NewReservation, Settlement, UsageBy};
use carrel_store::suite::fixture::{accept, at, id, learner, turn_of};
use carrel_store::{Learners, SharedStore};
use carrel_store_sqlite::{Error, SqliteStore};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

async fn opened() -> (SharedStore, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (open(folder.path()).await, folder)
}

async fn open(folder: &Path) -> SharedStore {
    let store = SqliteStore::open(&folder.join("store.db")).await;
    std::sync::Arc::new(store.expect("a store"))
}

async fn beside(folder: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.join("store.db"))
        .connect()
        .await
        .expect("a connection")
}

#[tokio::test]
async fn the_file_and_its_log_are_for_their_owner_only() {
    let (store, folder) = opened().await;
    learner(&store, "ada").await;
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let metadata = std::fs::metadata(folder.path().join(name)).expect(name);
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let (store, folder) = opened().await;
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    let before = store.feed(Cursor::default(), 99).await.expect("read");
    drop(store);
    let store = open(folder.path()).await;
    let after = store.feed(Cursor::default(), 99).await.expect("read");
    assert_eq!(after, before);
    assert!(!after.is_empty());
}

#[tokio::test]
async fn the_schema_refuses_to_change_what_is_for_good() {
    let (store, folder) = opened().await;
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 4, 1).await;
    let gone = learner(&store, "gone").await;
    store.close_learner(&gone, at(1)).await.expect("closed");
    store.erase_learner(&gone, at(2)).await.expect("erased");
    let mut connection = beside(folder.path()).await;
    for (sql, reason) in [
        ("UPDATE event SET time = 0", "append-only"),
        ("DELETE FROM event", "append-only"),
        (
            "UPDATE learner SET fence = fence - 1 WHERE id = 'ada'",
            "never lowered",
        ),
        ("DELETE FROM tombstone", "keeps the fence"),
        ("UPDATE turn SET state = 'running'", "never runs again"),
        ("DELETE FROM learner WHERE id = 'ada'", "FOREIGN KEY"),
        ("INSERT INTO learner (id) VALUES (5)", "NOT NULL"),
    ] {
        let refused = sqlx::query(sql).execute(&mut connection).await;
        let error = refused.expect_err(sql).to_string();
        assert!(error.contains(reason), "{sql}: {error}");
    }
}

#[tokio::test]
async fn two_turns_of_a_learner_cannot_run_at_once() {
    let (store, folder) = opened().await;
    let ada = learner(&store, "ada").await;
    accept(&store, &ada, "k1", 1).await;
    accept(&store, &ada, "k2", 2).await;
    let mut connection = beside(folder.path()).await;
    let both = sqlx::query("UPDATE turn SET state = 'running'")
        .execute(&mut connection)
        .await;
    let error = both.expect_err("two at once").to_string();
    assert!(error.contains("UNIQUE"), "{error}");
}

#[tokio::test]
async fn an_erased_learner_is_nowhere_in_the_files() {
    const SECRET: &str = "a sentence that only ada wrote";
    let (store, folder) = opened().await;
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    for learner in [&ada, &bob] {
        let mut new = carrel_store::suite::fixture::message(learner, "k1");
        new.text = format!("{SECRET}, or {learner}");
        store.accept(&new, at(1)).await.expect("accepted");
    }
    let found = |text: &str| {
        ["store.db", "store.db-wal"].into_iter().any(|name| {
            let bytes = std::fs::read(folder.path().join(name)).expect(name);
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    };
    let of = |name: &str| format!("{SECRET}, or {name}");
    assert!(found(&of("ada")) && found(&of("bob")));
    store.close_learner(&ada, at(2)).await.expect("closed");
    store.erase_learner(&ada, at(3)).await.expect("erased");
    assert!(!found(&of("ada")), "deleted is not enough");
    assert!(found(&of("bob")));
}

#[tokio::test]
async fn a_newer_schema_is_not_opened() {
    let (store, folder) = opened().await;
    drop(store);
    let mut connection = beside(folder.path()).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .expect("noted");
    connection.close().await.expect("closed");
    let path = folder.path().join("store.db");
    let opened = SqliteStore::open(&path).await;
    let Err(error @ Error::Newer { .. }) = opened else {
        unreachable!("{opened:?}");
    };
    let said = error.to_string();
    assert!(
        said.contains(&path.display().to_string()) && said.contains("migration 9999"),
        "{said}"
    );
}

#[tokio::test]
async fn usage_that_an_older_program_folded_is_folded_anew() {
    let (store, folder) = opened().await;
    let reservation = NewReservation {
        id: ReservationId(Uuid::from_u128(1)),
        learner: learner(&store, "ada").await,
        epoch: None,
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(9),
        per_day: None,
        per_month: None,
    };
    store.reserve(&reservation, at(1)).await.expect("held");
    let settlement = Settlement {
        cost: NanoUsd(9),
        ..Settlement::default()
    };
    let settled = store.settle(reservation.id, &settlement, at(1)).await;
    assert!(settled.expect("settled"));
    let calls = async |store: &SharedStore| {
        let rows = store.usage(UsageBy::Learner, None, at(0), at(2)).await;
        rows.expect("read")[0].calls
    };
    assert_eq!(calls(&store).await, 1);
    drop(store);
    let mut connection = beside(folder.path()).await;
    for statement in [
        "UPDATE usage SET calls = 7",
        "DELETE FROM _sqlx_migrations WHERE version = 4",
    ] {
        let done = sqlx::query(statement).execute(&mut connection).await;
        assert_eq!(done.expect("changed").rows_affected(), 1);
    }
    connection.close().await.expect("closed");
    assert_eq!(calls(&open(folder.path()).await).await, 1);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("missing").join("store.db");
    let error = SqliteStore::open(&path).await.expect_err("no folder");
    assert!(error.to_string().contains("missing/store.db"), "{error}");
}

#[tokio::test]
async fn a_closed_store_says_that_it_is_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("store.db")).await;
    let store = store.expect("a store");
    store.close().await;
    let answer = store.learner(&id("ada"), at(1)).await;
    let error = answer.expect_err("it is closed");
    assert!(
        matches!(error, carrel_store::Error::Unavailable { .. }),
        "{error}"
    );
}

/// Everything that a running server asks of the store by a timer, and what is looked at when somebody asks for metrics.
#[tokio::test]
async fn whatever_looks_and_sweeps_in_a_quiet_hour_writes_nothing() {
    let (store, folder) = opened().await;
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    let gone = learner(&store, "gone").await;
    store.close_learner(&gone, at(1)).await.expect("closed");
    store.erase_learner(&gone, at(2)).await.expect("erased");
    let files = || {
        ["store.db", "store.db-wal"].map(|name| {
            let path = folder.path().join(name);
            let changed = std::fs::metadata(&path).expect(name).modified();
            (std::fs::read(path).expect(name), changed.expect("a time"))
        })
    };
    let before = files();
    let hour = at(3600);
    assert!(store.waiting(hour, 9).await.expect("read").is_empty());
    assert!(store.renew(&[], hour).await.expect("renewed").is_empty());
    assert_eq!(
        store.sweep_reservations(hour, hour).await.expect("swept"),
        0
    );
    assert_eq!(store.sweep_access(hour).await.expect("swept"), 0);
    let erased = store.erased_repositories(at(1)).await;
    assert!(erased.expect("read").is_empty(), "an upload may yet come");
    store.stirring().await.expect("read");
    store.backlog().await.expect("read");
    store.census().await.expect("read");
    store.feed(Cursor::default(), 99).await.expect("read");
    assert!(files() == before, "the file or its log was written");
}
