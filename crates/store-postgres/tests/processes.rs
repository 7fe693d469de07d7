//! Several at once: processes that tell each other, reports beside messages, callers that go away.

mod support;

use std::sync::Arc;
use std::time::Duration;

use carrel_core::Epoch;
use carrel_store::SharedStore;
use carrel_store::heads::Contact;
use carrel_store::ledger::UsageBy;
use carrel_store::suite::fixture::{accept, at, claim, events, learner, message, owner};
use carrel_store::turns::Accepted;
use support::Database;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What is bound to happen, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

async fn opened() -> Option<(SharedStore, Database)> {
    let database = Database::fresh().await?;
    Some((Arc::new(database.store().await), database))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_appends_another_hears_of() {
    let Some((here, database)) = opened().await else {
        return;
    };
    let elsewhere: SharedStore = Arc::new(database.store().await);
    let mut changes = elsewhere.changes();
    // Each of the two listens.
    let listening =
        "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND state = 'idle'";
    database.until(listening).await;
    let ada = learner(&here, "ada").await;
    accept(&here, &ada, "k1", 1).await;
    let hint = timeout(SOON, changes.recv()).await;
    assert_eq!(hint.expect("it hears in time"), Ok(ada.clone()));
    assert!(
        events(&elsewhere, &ada).await.len() > 1,
        "it is there before the hint"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_hangs_stops_no_message_and_no_turn() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let ada = learner(&store, "ada").await;
    let mut holder = database.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE usage IN ACCESS EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .expect("locked");
    let mut reports = JoinSet::new();
    for _ in 0..40 {
        let store = store.clone();
        reports.spawn(async move { store.usage(UsageBy::Day, None, at(0), at(1)).await });
    }
    database
        .until("SELECT count(*) >= 4 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        .await;
    let turn = timeout(SOON, accept(&store, &ada, "k1", 1)).await;
    let claimed = timeout(SOON, claim(&store, &ada, owner(), 2)).await;
    assert_eq!(
        claimed.expect("claimed").turn.turn_id,
        turn.expect("accepted")
    );
    assert!(reports.try_join_next().is_none(), "they hang still");
}

/// A caller that goes away while it waits for a learner leaves no transaction open: it would hold the learner for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_held() {
    let Some((store, database)) = opened().await else {
        return;
    };
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let mut holder = database.connection().await;
    sqlx::raw_sql("BEGIN; SELECT lock_learner('ada')")
        .execute(&mut holder)
        .await
        .expect("locked");
    let mut callers = JoinSet::new();
    for number in 0..3 {
        let (store, ada) = (store.clone(), ada.clone());
        callers.spawn(async move { drop(store.request_stop(&ada, turn, at(number)).await) });
    }
    let waiting = "SELECT count(*) = 3 FROM pg_stat_activity WHERE wait_event = 'advisory'";
    database.until(waiting).await;
    callers.shutdown().await;
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .expect("released");
    let nothing_held = "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'";
    database.until(nothing_held).await;
    database
        .until("SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
        .await;
    let accepted = store.accept(&message(&ada, "k2"), at(5)).await;
    assert!(
        matches!(accepted, Ok(Accepted::Stored { .. })),
        "{accepted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_contact_waits_while_another_process_keeps_it_away() {
    let Some((here, database)) = opened().await else {
        return;
    };
    let ada = learner(&here, "ada").await;
    let elsewhere: SharedStore = Arc::new(database.store().await);
    let kept = elsewhere.keep_away(&ada).await.expect("answered");
    assert!(kept.is_some());
    let again = here.keep_away(&ada).await.expect("answered");
    assert!(again.is_none(), "one at a time");
    let contact = here.contact(&ada, Epoch(1));
    let mut contact = std::pin::pin!(contact);
    tokio::select! {
        answer = &mut contact => unreachable!("it did not wait: {answer:?}"),
        () = database.until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)") => {}
    }
    // Messages of the learner are taken meanwhile.
    let taken = timeout(SOON, accept(&here, &ada, "k", 1));
    taken.await.expect("it waits for nothing");
    drop(kept);
    let contact = timeout(SOON, contact).await.expect("it goes on");
    let contact = contact.expect("answered");
    assert!(matches!(contact, Contact::Current { .. }), "{contact:?}");
}

/// As when several find the turns of one that died.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_claim_at_once_get_each_turn_once() {
    const LEARNERS: usize = 2_000;
    const OWNERS: u8 = 4;
    let Some((store, database)) = opened().await else {
        return;
    };
    let make = format!(
        "INSERT INTO learner (id, class, created_time, status_epoch, status, fence, repository) \
         SELECT 'l' || n, 'free', n, 0, '{{}}', 0, gen_random_uuid() FROM generate_series(1, {LEARNERS}) n; \
         INSERT INTO message (message_id, learner, idempotency_key, body_hash, channel, text, sent_time) \
         SELECT gen_random_uuid(), id, 'k' || n, 'hash', 'web', 'text', n FROM generate_series(1, 2) n, learner; \
         INSERT INTO turn (place, turn_id, learner, version) \
         SELECT place, gen_random_uuid(), learner, 1 FROM message"
    );
    database.server.psql(&database.name, &make);
    let waiting = store.waiting(at(1), 4096).await.expect("listed");
    assert_eq!(waiting.len(), LEARNERS);
    let mut claiming = JoinSet::new();
    for _ in 0..OWNERS {
        let store: SharedStore = Arc::new(database.store().await);
        let (owner, waiting) = (owner(), waiting.clone());
        claiming.spawn(async move {
            let claims = waiting.iter().map(|learner| {
                let store = store.clone();
                async move { store.claim(learner, owner, at(1), at(9)).await }
            });
            let claimed = futures::future::join_all(claims).await;
            let claimed = claimed.into_iter().filter_map(|one| one.expect("answered"));
            claimed
                .map(|claimed| claimed.turn.turn_id)
                .collect::<Vec<_>>()
        });
    }
    let claimed = claiming.join_all().await.concat();
    assert_eq!(claimed.len(), LEARNERS, "one turn of each learner");
    let different: std::collections::BTreeSet<_> = claimed.into_iter().collect();
    assert_eq!(different.len(), LEARNERS, "and each once");
}
