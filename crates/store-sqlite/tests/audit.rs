//! Each contradiction that is looked for is found where somebody made it.

use carrel_core::{NanoUsd, ReservationId};
use carrel_store::SharedStore;
use carrel_store::adapter::audit::CHECKS;
use carrel_store::ledger::{NewReservation, Settlement};
use carrel_store::suite::fixture::{at, commit, committed, learner, running};
use carrel_store_sqlite::SqliteStore;
use sqlx::{ConnectOptions, Executor};
use uuid::Uuid;

/// What makes each contradiction of [`CHECKS`], in its order.
const BREAKS: [&str; CHECKS.len()] = [
    "UPDATE learner SET event_version = event_version + 1 WHERE id = 'ada'",
    "UPDATE learner SET head_snapshot = 'ff' WHERE id = 'ada'",
    "UPDATE generation SET turn = NULL WHERE learner = 'ada'",
    "UPDATE account SET held = held + 1 WHERE learner = 'ada'",
    "UPDATE account SET settled = settled + 1 WHERE learner = 'ada'",
    "UPDATE usage SET cost = cost + 1 WHERE learner = 'ada'",
];

/// A learner who has a turn behind, a call settled and one held.
async fn lived(store: &SharedStore, name: &str) {
    let id = learner(store, name).await;
    let (turn, _) = running(store, &id, "k", 1).await;
    for settled in [true, false] {
        let new = NewReservation {
            id: ReservationId(Uuid::now_v7()),
            learner: id.clone(),
            epoch: None,
            model: "demo/tutor".to_owned(),
            amount: NanoUsd(5),
            per_day: None,
            per_month: None,
        };
        store.reserve(&new, at(2)).await.expect("answered");
        if settled {
            let settlement = Settlement {
                cost: NanoUsd(3),
                input_tokens: 2,
                output_tokens: 1,
            };
            let first = store.settle(new.id, &settlement, at(3)).await;
            assert!(first.expect("answered"));
        }
    }
    committed(store, &commit(&id, 1, 1, Some(turn))).await;
}

#[tokio::test]
async fn what_does_not_add_up_is_named_and_nothing_else_is() {
    for (broken, (what, _)) in BREAKS.iter().zip(CHECKS) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.db");
        let store = SqliteStore::open(&file).await.expect("a store");
        let store: SharedStore = std::sync::Arc::new(store);
        lived(&store, "ada").await;
        lived(&store, "bob").await;
        assert_eq!(store.contradictions().await.expect("read"), []);
        let beside = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut beside = beside.connect().await.expect("a connection");
        let done = beside.execute(*broken).await.expect(broken);
        assert!(done.rows_affected() > 0, "{broken}");
        let found = store.contradictions().await.expect("read");
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.learner.as_str(), found.what))
            .collect();
        assert_eq!(found, [("ada", what)], "{broken}");
    }
}
