//! The log under everything that goes wrong: many writers with one to three events a transaction, aborts, pauses between an
//! event's number and its commit, killed connections, readers that start again. Beside them a naive reader, which must be seen
//! to lose events: else the storm shows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carrel_core::event::{Cursor, EventBody};
use carrel_core::learner::LearnerState;
use carrel_core::{Epoch, LearnerId, NanoUsd, ReservationId};
use carrel_store::ledger::{NewReservation, Settlement, UsageBy};
use carrel_store::suite::fixture::{at, id, message, new_learner};
use carrel_store::{Events as _, Learners as _, Ledger as _, Turns as _};
use carrel_testkit::postgres::{SUPERUSER, Server};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fault::Inner;
use crate::write::APPEND;
use crate::{Options, PostgresStore, migrate};

const LEARNERS: u32 = 24;
const WRITERS: u64 = 12;
const READERS: u64 = 3;
const STORM: Duration = Duration::from_secs(8);
/// How long a reader may take to see the rest.
const CALM: Duration = Duration::from_secs(20);

const INVERTED: &str = "SELECT count(*) FROM (SELECT version, lag(version) OVER \
    (PARTITION BY learner ORDER BY tx, sequence) AS before FROM event) AS e WHERE version < before";

/// A database of its own for a test.
async fn database(name: &str) -> Option<(&'static Server, Options)> {
    let server = Server::shared(&["fsync=off"])?;
    server.psql("postgres", &format!("CREATE DATABASE {name}"));
    let options = Options::new(&server.url(SUPERUSER, name));
    migrate(&options).await.expect("migrated");
    Some((server, options))
}

async fn open(options: &Options) -> PostgresStore {
    PostgresStore::open(options).await.expect("a store")
}

fn name(number: u32) -> LearnerId {
    id(&format!("learner-{number}"))
}

fn event() -> EventBody {
    EventBody::StateChanged {
        state: LearnerState::Ready,
        epoch: Epoch(1),
    }
}

/// One to three events with pauses; then the commit, an abort, or the death of the connection.
async fn append_some(store: &PostgresStore, learner: &LearnerId, rng: &mut StdRng) -> Inner<()> {
    let mut write = store.write(learner).await?;
    for _ in 0..rng.random_range(1..=3) {
        write.append(learner, &event(), at(1)).await?;
        if rng.random_ratio(1, 3) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..15))).await;
        }
    }
    match rng.random_range(0..20) {
        0..=2 => Ok(()),
        3 => {
            sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())")
                .execute(write.connection())
                .await?;
            Ok(())
        }
        _ => write.commit().await,
    }
}

/// A call that is paid for: two events in two statements.
async fn spend(store: &PostgresStore, learner: &LearnerId) -> carrel_store::Result<()> {
    let new = NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: learner.clone(),
        epoch: None,
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(3),
        per_day: None,
        per_month: None,
    };
    store.reserve(&new, at(1)).await?;
    let cost = Settlement {
        cost: NanoUsd(2),
        input_tokens: 1,
        output_tokens: 1,
    };
    store.settle(new.id, &cost, at(1)).await?;
    Ok(())
}

async fn writer(options: Options, seed: u64, until: Instant) {
    let store = open(&options).await;
    let mut rng = StdRng::seed_from_u64(seed);
    while Instant::now() < until {
        let learner = name(rng.random_range(0..LEARNERS));
        // What fails here was killed on purpose; what counts is in the database.
        match rng.random_range(0..4) {
            0 => {
                let key = Uuid::new_v4().to_string();
                drop(store.accept(&message(&learner, &key), at(1)).await);
            }
            1 => drop(spend(&store, &learner).await),
            _ => drop(append_some(&store, &learner, &mut rng).await),
        }
    }
}

/// Reads on from where it was, also with new connections after it died between reading and keeping its place; until it has seen
/// so many, or time is up.
async fn reader(options: Options, seed: u64, written: watch::Receiver<Option<usize>>) -> Vec<Seen> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut store = open(&options).await;
    let (mut place, mut seen) = (Cursor::default(), Vec::new());
    let give_up = Instant::now() + STORM + CALM;
    loop {
        let all = *written.borrow();
        let page = store.feed(place, 40).await.expect("read");
        if rng.random_ratio(1, 50) {
            store = open(&options).await;
            continue;
        }
        let Some(last) = page.last() else {
            if all.is_some_and(|all| seen.len() >= all) || Instant::now() > give_up {
                return seen;
            }
            tokio::task::yield_now().await;
            continue;
        };
        assert!(page.is_sorted_by_key(|fed| fed.cursor) && place < page[0].cursor);
        place = last.cursor;
        seen.extend(page.into_iter().map(|fed| Seen {
            learner: fed.event.learner,
            version: fed.event.version.0,
        }));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    learner: LearnerId,
    version: u64,
}

/// Believes that numbers show in their order, up to the oldest transaction that runs or not even that; how many it sees.
async fn naive(options: Options, bound: &str, written: watch::Receiver<Option<usize>>) -> usize {
    let store = open(&options).await;
    let sql = format!("SELECT sequence FROM event WHERE sequence > $1 {bound} ORDER BY sequence");
    let (mut last, mut seen) = (0_i64, 0);
    loop {
        let is_over = written.borrow().is_some();
        let page: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()))
            .bind(last)
            .fetch_all(&store.reports)
            .await
            .expect("read");
        seen += page.len();
        last = page.last().copied().unwrap_or(last);
        if page.is_empty() && is_over {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_the_log_sees_every_event_once_whatever_goes_wrong() {
    let Some((server, options)) = database("storm").await else {
        return;
    };
    let store = open(&options).await;
    for number in 0..LEARNERS {
        let new = new_learner(name(number).as_str());
        store.create_learner(&new, at(0)).await.expect("made");
    }
    let (done, written) = watch::channel(None);
    let mut readers = JoinSet::new();
    for seed in 0..READERS {
        readers.spawn(reader(options.clone(), seed, written.clone()));
    }
    let mut naives = JoinSet::new();
    naives.spawn(naive(options.clone(), "", written.clone()));
    naives.spawn(naive(
        options.clone(),
        "AND tx < pg_snapshot_xmin(pg_current_snapshot())",
        written.clone(),
    ));
    let mut writers = JoinSet::new();
    let until = Instant::now() + STORM;
    for seed in 0..WRITERS {
        writers.spawn(writer(options.clone(), 1_000 + seed, until));
    }
    writers.join_all().await;
    // Killed ones may still be ending; what they held is given back by then.
    let truth = settled(&store).await;
    done.send_replace(Some(truth.len()));

    for seen in readers.join_all().await {
        let mut by_learner: BTreeMap<&LearnerId, Vec<u64>> = BTreeMap::new();
        for event in &seen {
            by_learner
                .entry(&event.learner)
                .or_default()
                .push(event.version);
        }
        for (learner, versions) in by_learner {
            let whole: Vec<u64> = (1..=versions.len() as u64).collect();
            assert_eq!(versions, whole, "{learner}: each once, in order");
        }
        assert_eq!(seen.len(), truth.len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), truth);
    }
    for seen in naives.join_all().await {
        println!("a naive reader saw {seen} of {}", truth.len());
        assert!(seen < truth.len(), "the storm is none");
    }
    assert_eq!(server.psql("storm", INVERTED).trim(), "0");
    assert_eq!(
        server
            .psql(
                "storm",
                "SELECT deadlocks FROM pg_stat_database WHERE datname = 'storm'"
            )
            .trim(),
        "0"
    );

    let all = (at(-9_999), at(9_999));
    let before = store.usage(UsageBy::Learner, None, all.0, all.1).await;
    store.rebuild_usage().await.expect("rebuilt");
    let after = store.usage(UsageBy::Learner, None, all.0, all.1).await;
    let (before, after) = (before.expect("read"), after.expect("read"));
    assert_eq!(before, after, "the read model is the fold");
    assert!(!before.is_empty());
}

/// Everything that is committed, once no writer is left.
async fn settled(store: &PostgresStore) -> BTreeSet<Seen> {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    carrel_testkit::until("no transaction is open", async || {
        let others = sqlx::query_scalar(OTHERS).fetch_one(&store.reports);
        others
            .await
            .map(|others: i64| others == 0)
            .expect("counted")
    })
    .await;
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT learner, version FROM event")
        .fetch_all(&store.reports)
        .await
        .expect("read");
    let seen = rows.into_iter().map(|(learner, version)| Seen {
        learner: id(&learner),
        version: version.cast_unsigned(),
    });
    seen.collect()
}

/// A transaction that has its number before it has the lock turns versions round: what `lock_learner` comes first for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_that_is_taken_too_late_is_seen() {
    let Some((server, options)) = database("late").await else {
        return;
    };
    let store = open(&options).await;
    let ada = new_learner("ada");
    store.create_learner(&ada, at(0)).await.expect("made");
    let inverted = || server.psql("late", INVERTED).trim() != "0";
    let mut writers = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for _ in 0..8 {
        let pool = store.turns.clone();
        writers.spawn(async move {
            while Instant::now() < until {
                let mut late = pool.acquire().await.expect("a connection");
                for early in [
                    "BEGIN",
                    "SELECT pg_current_xact_id()",
                    "SELECT lock_learner('ada')",
                ] {
                    sqlx::query(early)
                        .execute(late.bounded())
                        .await
                        .expect(early);
                }
                sqlx::query(APPEND)
                    .bind("ada")
                    .bind(None::<i64>)
                    .bind(0_i64)
                    .bind("state_changed")
                    .bind("{}")
                    .execute(late.bounded())
                    .await
                    .expect("appended");
                let committed = sqlx::query("COMMIT").execute(late.bounded()).await;
                committed.expect("committed");
                late.give_back();
            }
        });
    }
    writers.join_all().await;
    assert!(inverted(), "no versions were turned round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_claim_48_000_deliveries_once_each() {
    const ROWS: u32 = 48_000;
    let Some((server, options)) = database("queue").await else {
        return;
    };
    let store = std::sync::Arc::new(open(&options).await);
    let ada = new_learner("ada");
    store.create_learner(&ada, at(0)).await.expect("made");
    let body = serde_json::to_string(&event()).expect("written");
    server.psql(
        "queue",
        &format!(
            "INSERT INTO outbox (learner, channel, body) \
             SELECT 'ada', 'lti', '{body}' FROM generate_series(1, {ROWS}); ANALYZE outbox"
        ),
    );
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        workers.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let items = store.claim_outbox("lti", at(1), at(9_999), 50).await;
                let items = items.expect("claimed");
                if items.is_empty() {
                    return claimed;
                }
                claimed.extend(items.into_iter().map(|item| item.id));
            }
        });
    }
    let claimed: Vec<i64> = workers.join_all().await.concat();
    println!(
        "{:.0} a second",
        f64::from(ROWS) / began.elapsed().as_secs_f64()
    );
    assert_eq!(claimed.len(), ROWS as usize);
    assert_eq!(
        claimed.into_iter().collect::<BTreeSet<_>>().len(),
        ROWS as usize
    );
}
