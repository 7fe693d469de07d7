//! What makes each contradiction, for an implementation's test that each is found where somebody made it, and nowhere else.

use carrel_core::{NanoUsd, ReservationId};
use uuid::Uuid;

use super::fixture::{at, commit, committed, learner, running};
use crate::SharedStore;
use crate::adapter::audit::CHECKS;
use crate::ledger::{NewReservation, Settlement};

/// What makes each contradiction of [`CHECKS`] for the learner `ada`: its place there, and a statement.
pub const BREAKS: [(usize, &str); CHECKS.len() + 1] = [
    (
        0,
        "UPDATE learner SET event_version = event_version + 1 WHERE id = 'ada'",
    ),
    (
        1,
        "UPDATE learner SET head_snapshot = 'ff' WHERE id = 'ada'",
    ),
    (
        1,
        "UPDATE generation SET expired = true WHERE learner = 'ada'",
    ),
    (
        2,
        "UPDATE generation SET parent = parent + 1 WHERE learner = 'ada'",
    ),
    (
        3,
        "UPDATE generation SET version = version - 1 WHERE learner = 'ada'",
    ),
    (
        4,
        "UPDATE turn SET snapshot = NULL WHERE learner = 'ada' AND state = 'done'",
    ),
    (5, "UPDATE generation SET turn = NULL WHERE learner = 'ada'"),
    (
        6,
        "UPDATE turn SET version = version - 1 WHERE learner = 'ada' AND state = 'done'",
    ),
    (
        7,
        "UPDATE turn SET epoch = epoch + 1 WHERE learner = 'ada' AND state = 'running'",
    ),
    (
        8,
        "DELETE FROM turn WHERE learner = 'ada' AND state = 'running'",
    ),
    (
        9,
        "UPDATE account SET held = held + 1 WHERE learner = 'ada'",
    ),
    (
        10,
        "UPDATE account SET settled = settled + 1 WHERE learner = 'ada'",
    ),
    (11, "UPDATE usage SET cost = cost + 1 WHERE learner = 'ada'"),
];

/// Makes a learner who has a turn behind and one that runs, a call settled and one held.
pub async fn lived(store: &SharedStore, name: &str) {
    let id = learner(store, name).await;
    let (turn, _) = running(store, &id, "first", 1).await;
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
    running(store, &id, "second", 1).await;
}

/// What is found wrong: whose and what.
pub async fn found(store: &SharedStore) -> Vec<(String, &'static str)> {
    let found = store.contradictions().await.expect("read");
    let found = found.into_iter();
    found
        .map(|found| (found.learner.to_string(), found.what))
        .collect()
}
