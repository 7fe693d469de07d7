//! How fast messages are accepted, against a server of its own with `fsync`, everything on this machine:
//! `cargo run --release -p carrel-store-postgres --example pace -- 2000 20 32` (messages a second, seconds,
//! connections).

use std::sync::Arc;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_core::learner::Status;
use carrel_store::suite::fixture::{at, id, message};
use carrel_store::turns::Accepted;
use carrel_store::{Learners as _, Turns as _};
use carrel_store_postgres::{Options, PostgresStore, migrate};
use carrel_testkit::postgres::{SUPERUSER, Server};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LEARNERS: u32 = 16_000;
/// How often a handful of messages is sent.
const TICK: Duration = Duration::from_millis(5);

fn learner(number: u32) -> LearnerId {
    id(&format!("learner-{number}"))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "says what it measured")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |or: u32| {
        arguments
            .next()
            .map_or(or, |text| text.parse().expect("a number"))
    };
    let (rate, seconds, connections) = (argument(2_000), argument(20), argument(32));
    let Some(server) = Server::shared(&["shared_buffers=256MB", "max_wal_size=4GB"]) else {
        return;
    };
    server.psql("postgres", "CREATE DATABASE pace");
    let mut options = Options::new(&server.url(SUPERUSER, "pace"));
    options.admission = connections;
    migrate(&options).await.expect("migrated");
    let status = serde_json::to_string(&Status::default()).expect("written");
    server.psql(
        "pace",
        &format!(
            "INSERT INTO learner (id, class, created_time, status_epoch, status, fence, repository) \
             SELECT 'learner-' || n, 'free', n, 1, '{status}', 1, gen_random_uuid() \
             FROM generate_series(0, {LEARNERS} - 1) n; VACUUM ANALYZE"
        ),
    );
    let store = Arc::new(PostgresStore::open(&options).await.expect("a store"));
    let known = store.learner(&learner(0), at(0)).await.expect("read");
    assert!(known.is_some());

    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = JoinSet::new();
    let began = Instant::now();
    let all = rate * seconds;
    let mut number = 0;
    while number < all {
        let due = tick.tick().await;
        let until = (due - began).as_secs_f64() * f64::from(rate);
        while f64::from(number) < until && number < all {
            let store = store.clone();
            sent.spawn(async move {
                // From when it was due: waiting for a place counts.
                let whose = learner(number.wrapping_mul(7_919) % LEARNERS);
                let mut new = message(&whose, &number.to_string());
                new.max_queued = u32::MAX;
                let accepted = store.accept(&new, at(1)).await.expect("accepted");
                assert!(matches!(
                    accepted,
                    Accepted::Stored {
                        repeated: false,
                        ..
                    }
                ));
                due.elapsed()
            });
            number += 1;
        }
    }
    let mut took = sent.join_all().await;
    let whole = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at_share = |share: usize| took[took.len() * share / 1_000 - 1].as_secs_f64() * 1e3;
    println!(
        "{:.0} messages/s accepted ({rate} asked): p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
        f64::from(all) / whole,
        at_share(500),
        at_share(990),
        at_share(999),
    );
}
