//! The database itself: what its schema refuses whoever asks, what happens when it is old or away, and what a turn costs it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use carrel_core::event::Cursor;
use carrel_core::{Epoch, NanoUsd, ReservationId};
use carrel_store::SharedStore;
use carrel_store::heads::{Committed, Contact};
use carrel_store::ledger::{NewReservation, Reserved, Settlement};
use carrel_store::suite::fixture::{
    accept, at, begin, claim, commit, learner, message, owner, running, story, turn_of,
};
use carrel_store::turns::Accepted;
use carrel_store_postgres::{Error, Options, PostgresStore, migrate};
use carrel_testkit::until;
use support::Database;
use support::relay::{Loses, Relay};
use tokio::time::timeout;
use uuid::Uuid;

async fn opened() -> Option<(SharedStore, Database)> {
    let database = Database::fresh().await?;
    Some((Arc::new(database.store().await), database))
}

fn reservation(learner: &carrel_core::LearnerId) -> NewReservation {
    NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: learner.clone(),
        epoch: Some(Epoch(1)),
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(5),
        per_day: Some(NanoUsd(100)),
        per_month: Some(NanoUsd(100)),
    }
}

#[tokio::test]
async fn the_schema_refuses_to_change_what_is_for_good() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 4, 1).await;
    let gone = learner(&store, "gone").await;
    store.close_learner(&gone, at(1)).await.expect("closed");
    store.erase_learner(&gone, at(2)).await.expect("erased");
    for (sql, state) in [
        (
            "UPDATE event SET time = 0",
            "integrity_constraint_violation",
        ),
        ("DELETE FROM event", "integrity_constraint_violation"),
        ("TRUNCATE event", "integrity_constraint_violation"),
        (
            "UPDATE learner SET fence = fence - 1 WHERE id = ''ada''",
            "integrity_constraint_violation",
        ),
        ("DELETE FROM tombstone", "integrity_constraint_violation"),
        ("TRUNCATE tombstone", "integrity_constraint_violation"),
        (
            "UPDATE turn SET state = ''running''",
            "integrity_constraint_violation",
        ),
        (
            "DELETE FROM learner WHERE id = ''ada''",
            "foreign_key_violation",
        ),
        (
            "UPDATE turn SET state = ''odd''",
            "integrity_constraint_violation",
        ),
        (
            "INSERT INTO learner (id) VALUES (''eve'')",
            "not_null_violation",
        ),
    ] {
        let attempt = format!(
            "DO $$ BEGIN EXECUTE '{sql}'; RAISE EXCEPTION 'it was done'; \
             EXCEPTION WHEN {state} THEN NULL; END $$"
        );
        database.server.psql(&database.name, &attempt);
    }
}

#[tokio::test]
async fn two_turns_of_a_learner_cannot_run_at_once() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let ada = learner(&store, "ada").await;
    accept(&store, &ada, "k1", 1).await;
    accept(&store, &ada, "k2", 2).await;
    let both = "DO $$ BEGIN UPDATE turn SET state = 'running'; RAISE EXCEPTION 'it was done'; \
        EXCEPTION WHEN unique_violation THEN NULL; END $$";
    database.server.psql(&database.name, both);
}

#[tokio::test]
async fn a_schema_that_is_too_old_is_not_opened_and_says_what_to_do() {
    let Some(database) = Database::fresh().await else {
        return;
    };
    let refused = |found: i64| {
        let options = database.options();
        async move {
            let opened = PostgresStore::open(&options).await;
            let error = opened.expect_err("it is too old");
            assert!(
                matches!(error, Error::Store(carrel_store::Error::Schema { found: seen, .. }) if seen == found),
                "{error:?}"
            );
            assert!(error.to_string().contains("carrel migrate"), "{error}");
        }
    };
    let first_alone = "DELETE FROM _sqlx_migrations WHERE version > 1";
    database.server.psql(&database.name, first_alone);
    refused(1).await;
    database
        .server
        .psql(&database.name, "DROP TABLE _sqlx_migrations");
    refused(0).await;
}

#[tokio::test]
async fn a_newer_schema_has_only_more_and_is_opened() {
    let Some(database) = Database::fresh().await else {
        return;
    };
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'from the future', true, '', 0)";
    database.server.psql(&database.name, newer);
    let store: SharedStore = Arc::new(database.store().await);
    learner(&store, "ada").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_migrate_at_once_make_one_schema() {
    let Some(database) = Database::fresh().await else {
        return;
    };
    let options = database.empty().options();
    let mut migrating = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let options = options.clone();
        migrating.spawn(async move { migrate(&options).await });
    }
    for migrated in migrating.join_all().await {
        migrated.expect("migrated");
    }
    PostgresStore::open(&options).await.expect("a store");
}

/// Somebody makes a table of the same name and does not end.
#[tokio::test]
async fn a_migration_does_not_wait_for_a_lock_for_long() {
    let Some(database) = Database::fresh().await else {
        return;
    };
    let empty = database.empty();
    let mut holder = empty.connection().await;
    sqlx::raw_sql("BEGIN; CREATE TABLE class (name text)")
        .execute(&mut holder)
        .await
        .expect("made");
    let migrated = migrate(&empty.options()).await;
    let error = migrated.expect_err("it is held");
    let why = std::error::Error::source(&error).map(ToString::to_string);
    assert!(
        why.is_some_and(|why| why.contains("lock timeout")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_comes_back() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let ada = learner(&store, "ada").await;
    let (server, name) = (database.server, &database.name);
    let away = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    server.psql("postgres", &away);
    let new = message(&ada, "k1");
    for _ in 0..3 {
        let error = store.accept(&new, at(1)).await.expect_err("it is away");
        assert!(
            matches!(error, carrel_store::Error::Unavailable { .. }),
            "{error:?}"
        );
    }
    server.psql(
        "postgres",
        &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    );
    // Each connection that died is found dead once.
    let mut accepted = store.accept(&new, at(2)).await;
    for _ in 0..20 {
        if accepted.is_ok() && store.head(&ada).await.is_ok() {
            break;
        }
        accepted = store.accept(&new, at(2)).await;
    }
    let accepted = accepted.expect("it is back");
    assert!(matches!(accepted, Accepted::Stored { .. }));
    assert_eq!(story(&store, &ada).await, ["learner_created", "queued"]);
}

/// Everything of one turn but waiting for it: what the server is sent is in its log.
#[tokio::test]
async fn a_whole_turn_takes_twelve_statements() {
    let Some(database) = Database::fresh().await else {
        return;
    };
    let (server, name) = (database.server, &database.name);
    server.psql(
        "postgres",
        &format!("ALTER DATABASE {name} SET log_statement = 'all'"),
    );
    let store: SharedStore = Arc::new(database.store().await);
    let ada = learner(&store, "ada").await;
    // Hints go by connections of their own, many in one.
    let is_of_a_turn = |line: &&str| {
        (line.contains("LOG:  statement: ") || line.contains("LOG:  execute "))
            && !["pg_notify", "LISTEN", "the log is"]
                .iter()
                .any(|other| line.contains(other))
    };
    // What was sent before the mark is in the log before it.
    let sent = async |mark: &str| {
        server.psql(name, &format!("SELECT '{mark}'"));
        until(mark, async || server.log().contains(mark)).await;
        let log = server.log();
        let statements = log.lines().filter(is_of_a_turn);
        statements.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = sent("the log is read").await.len();
    assert!(before > 0, "it is logged");
    let turn = accept(&store, &ada, "k1", 1).await;
    let claimed = claim(&store, &ada, owner(), 2).await;
    let contact = store.contact(&ada, Epoch(1)).await.expect("answered");
    assert!(matches!(contact, Contact::Current { .. }));
    begin(&store, &claimed, 1, 3).await;
    let new = reservation(&ada);
    let held = store.reserve(&new, at(4)).await.expect("answered");
    assert!(matches!(held, Reserved::Held { .. }));
    let cost = Settlement {
        cost: NanoUsd(4),
        input_tokens: 1,
        output_tokens: 1,
    };
    assert!(store.settle(new.id, &cost, at(5)).await.expect("settled"));
    let ending = commit(&ada, 1, 1, Some(turn));
    let done = store.commit(&ending, at(6)).await.expect("answered");
    assert!(matches!(
        done,
        Committed::Committed {
            repeated: false,
            ..
        }
    ));
    let of_turn = &sent("the log is read again").await[before..];
    assert_eq!(of_turn.len(), 12, "{}", of_turn.join("\n"));
}

/// The answer to a commit is lost with the connection: it may have been made or not. The same call again is right either way.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_made_once() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let relay = Relay::start(database.server.folder());
    let relayed: SharedStore = Arc::new(database.relayed(&relay).await);
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 1).await;
    let new = reservation(&ada);
    let ending = commit(&ada, 1, 1, Some(turn));
    let next = message(&ada, "k2");
    let lost = |error: carrel_store::Error| {
        assert!(
            matches!(error, carrel_store::Error::Unavailable { .. }),
            "{error:?}"
        );
    };
    relay.lose(Loses::Execution);
    lost(relayed.reserve(&new, at(13)).await.expect_err("lost"));
    let held = store.reserve(&new, at(13)).await.expect("answered");
    let Reserved::Held {
        left: Some(left), ..
    } = held
    else {
        unreachable!("it is held: {held:?}");
    };
    assert_eq!(left.remaining, NanoUsd(95), "held once");
    relay.lose(Loses::Commit);
    lost(relayed.commit(&ending, at(14)).await.expect_err("lost"));
    let again = store.commit(&ending, at(15)).await.expect("answered");
    assert!(
        matches!(again, Committed::Committed { repeated: true, .. }),
        "it was made: {again:?}"
    );
    relay.lose(Loses::Execution);
    lost(relayed.accept(&next, at(16)).await.expect_err("lost"));
    let again = store.accept(&next, at(17)).await.expect("answered");
    assert!(
        matches!(again, Accepted::Stored { repeated: true, .. }),
        "it was made: {again:?}"
    );
    let told = story(&store, &ada).await;
    assert_eq!(
        told,
        ["learner_created", "queued", "started", "done", "queued"]
    );
    assert_eq!(store.generations(&ada).await.expect("read").len(), 1);
}

/// Answers are swallowed and no connection ends: nothing waits for ever, and no connection stays used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_falls_silent_ends_what_waits_and_uses_no_connection_up() {
    const MORE_THAN_CONNECTIONS: usize = 50;
    let Some((store, database)) = opened().await else {
        return;
    };
    let relay = Relay::start(database.server.folder());
    let mut options = database.by(&relay);
    options.patience = Duration::from_millis(100);
    let relayed: SharedStore = Arc::new(PostgresStore::open(&options).await.expect("a store"));
    let mut learners = Vec::new();
    for number in 0..MORE_THAN_CONNECTIONS {
        learners.push(learner(&store, &format!("l{number}")).await);
    }
    let all = |key: &'static str| {
        let calls = learners.iter().map(|learner| {
            let relayed = relayed.clone();
            async move {
                let accepted = relayed.accept(&message(learner, key), at(1)).await;
                let written = relayed.change_learner(learner, None, None).await;
                let read = relayed.feed(Cursor::default(), 1).await;
                [accepted.map(drop), written.map(drop), read.map(drop)]
            }
        });
        futures::future::join_all(calls)
    };
    assert!(all("k1").await.iter().flatten().all(Result::is_ok));
    relay.lose(Loses::Everything);
    let silent = timeout(Duration::from_mins(1), all("k2")).await;
    for answer in silent.expect("it ends").into_iter().flatten() {
        let error = answer.expect_err("it is silent");
        assert!(
            matches!(error, carrel_store::Error::Unavailable { .. }),
            "{error:?}"
        );
    }
    relay.lose(Loses::Nothing);
    let again = timeout(Duration::from_secs(10), all("k3")).await;
    for answer in again
        .expect("all connections are there")
        .into_iter()
        .flatten()
    {
        answer.expect("it speaks again");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_and_what_went_wrong_is_said_once() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nowhere.local_addr().expect("an address");
    drop(nowhere);
    let options = Options::new(&format!("postgres://carrel:secret@{address}/school"));
    let opened = PostgresStore::open(&options).await.map(drop);
    let migrated = migrate(&options).await;
    for error in [opened, migrated].map(|done| done.expect_err("nobody listens")) {
        let mut said = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            said = format!("{said}: {error}");
            source = error.source();
        }
        assert!(said.contains(&address.to_string()), "{said}");
        assert_eq!(said.matches("refused").count(), 1, "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
