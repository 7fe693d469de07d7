//! How turns end without a commit, and how channels learn of outcomes.

use carrel_core::Epoch;
use carrel_core::event::EventBody;
use carrel_core::learner::StartKind;
use carrel_core::turn::{Death, FailureCode, TurnState};

use super::fixture::{
    accept, at, begin, claim, commit, committed, failure, learner, message, newest, owner, running,
    story,
};
use crate::SharedStore;
use crate::turns::{OwnerWrite, Timing};

pub async fn a_failed_turn_keeps_its_failure_and_lets_the_next_one_run(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    let next = accept(&store, &ada, "k2", 13).await;
    let last = async || store.last_ended(&ada).await.expect("read");
    assert_eq!(last().await, None);
    let verdict = failure(FailureCode::AgentFailed);
    let timing = Timing {
        agent: 77,
        ..Timing::default()
    };
    let failed = store.fail(turn, lease, &verdict, timing, at(14)).await;
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(failed.expect("failed"), OwnerWrite::Written(row.version));
    assert_eq!(row.state, TurnState::Failed);
    assert_eq!(row.failure, Some(verdict));
    assert_eq!((row.reply, row.snapshot_id), (None, None));
    assert_eq!((row.timing.agent, row.timing.queue), (77, 1_000));
    let head = store.head(&ada).await.expect("read").expect("a head");
    assert_eq!(head.0.generation.0, 0, "a failure commits nothing");
    let EventBody::Failed { turn_id, code, .. } = newest(&store, &ada).await else {
        unreachable!("the newest event is the failure");
    };
    assert_eq!((turn_id, code), (turn, FailureCode::AgentFailed));
    assert_eq!(claim(&store, &ada, owner(), 15).await.turn.turn_id, next);
    assert_eq!(last().await.expect("a turn").turn_id, turn);
}

pub async fn a_turn_that_waits_is_stopped_at_once(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = accept(&store, &ada, "k1", 1).await;
    let lease = claim(&store, &ada, owner(), 2).await.lease;
    let stopped = store.request_stop(&ada, turn, at(3)).await;
    let stopped = stopped.expect("answered").expect("a turn");
    assert_eq!(stopped.state, TurnState::Stopped);
    assert!(stopped.stopped);
    let EventBody::Done {
        turn_id,
        stopped,
        snapshot_id,
        ..
    } = newest(&store, &ada).await
    else {
        unreachable!("the newest event is the end");
    };
    assert_eq!((turn_id, stopped, snapshot_id), (turn, true, None));
    let late = store.begin_attempt(turn, lease, Epoch(1), StartKind::Warm, at(4));
    assert_eq!(late.await.expect("answered"), OwnerWrite::Ended);
    let none = store.claim(&ada, owner(), at(5), at(65)).await;
    assert_eq!(none.expect("answered"), None);
}

pub async fn a_running_turn_keeps_the_wish_to_stop(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let before = story(&store, &ada).await;
    let wished = store.request_stop(&ada, turn, at(13)).await;
    let wished = wished.expect("answered").expect("a turn");
    assert_eq!(wished.state, TurnState::Running);
    assert!(wished.stop_requested && !wished.stopped);
    let claimed = claim(&store, &ada, owner(), 100).await;
    assert!(claimed.turn.stop_requested, "the next owner reads it too");
    assert_eq!(story(&store, &ada).await, before);
}

pub async fn a_turn_that_should_stop_does_not_run_again_after_a_death(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    store
        .request_stop(&ada, turn, at(13))
        .await
        .expect("wished");
    let death = Death::Infrastructure;
    let died = store.attempt_died(turn, lease, Epoch(3), death, "gone", "half", at(14));
    assert_eq!(died.await.expect("answered"), OwnerWrite::Ended);
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.state, TurnState::Stopped);
    let told = story(&store, &ada).await;
    assert_eq!(told[2..], ["started", "restarted", "done"]);
}

pub async fn an_ended_turn_never_runs_again(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, lease) = running(&store, &ada, "k1", 3).await;
    committed(&store, &commit(&ada, 3, 1, Some(turn))).await;
    let before = story(&store, &ada).await;
    let begun = store.begin_attempt(turn, lease, Epoch(4), StartKind::Warm, at(21));
    assert_eq!(begun.await.expect("answered"), OwnerWrite::Ended);
    let died = store.attempt_died(turn, lease, Epoch(3), Death::Agent, "late", "", at(21));
    assert_eq!(died.await.expect("answered"), OwnerWrite::Ended);
    let verdict = failure(FailureCode::Timeout);
    let failed = store.fail(turn, lease, &verdict, Timing::default(), at(21));
    assert_eq!(failed.await.expect("answered"), OwnerWrite::Ended);
    let stopped = store.request_stop(&ada, turn, at(21)).await;
    let stopped = stopped.expect("answered").expect("a turn");
    assert_eq!((stopped.state, stopped.stopped), (TurnState::Done, false));
    let gone = store.renew(&[(turn, lease)], at(90)).await;
    assert_eq!(gone.expect("answered"), [turn]);
    assert_eq!(store.waiting(at(500), 9).await.expect("listed"), []);
    assert_eq!(story(&store, &ada).await, before);
}

pub async fn outcomes_of_other_channels_wait_until_they_are_delivered(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    for key in ["k1", "k2"] {
        let mut new = message(&ada, key);
        "whatsapp".clone_into(&mut new.channel);
        store.accept(&new, at(1)).await.expect("accepted");
    }
    let claimed = claim(&store, &ada, owner(), 2).await;
    let (first, lease) = (claimed.turn.turn_id, claimed.lease);
    begin(&store, &claimed, 1, 3).await;
    let verdict = failure(FailureCode::Timeout);
    let failed = store.fail(first, lease, &verdict, Timing::default(), at(4));
    failed.await.expect("failed");
    let claimed = claim(&store, &ada, owner(), 5).await;
    begin(&store, &claimed, 2, 6).await;
    let second = claimed.turn.turn_id;
    committed(&store, &commit(&ada, 2, 1, Some(second))).await;

    let other = store.claim_outbox("lti", at(30), at(40), 9).await;
    assert_eq!(other.expect("claimed"), []);
    let items = store.claim_outbox("whatsapp", at(30), at(40), 9).await;
    let items = items.expect("claimed");
    let about: Vec<_> = items.iter().map(|item| item.body.turn_id()).collect();
    assert_eq!(about, [Some(first), Some(second)], "oldest first");
    assert!(items.iter().all(|item| item.learner == ada));
    let taken = store.claim_outbox("whatsapp", at(39), at(60), 9).await;
    assert_eq!(taken.expect("claimed"), [], "claimed until 40");
    store.delivered(items[0].id).await.expect("delivered");
    let again = store.claim_outbox("whatsapp", at(40), at(60), 9).await;
    assert_eq!(again.expect("claimed"), items[1..]);
}

pub async fn outcomes_of_the_web_leave_nothing_to_deliver(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    committed(&store, &commit(&ada, 3, 1, Some(turn))).await;
    let items = store.claim_outbox("web", at(30), at(40), 9).await;
    assert_eq!(items.expect("claimed"), []);
}
