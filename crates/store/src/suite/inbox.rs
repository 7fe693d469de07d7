//! Messages come in: once, in order, or with a reason why not.

use std::collections::HashSet;

use carrel_core::event::EventBody;
use carrel_core::turn::TurnState;

use super::fixture::{accept, at, at_once, id, learner, message, newest, story};
use crate::SharedStore;
use crate::turns::Accepted;

pub async fn an_accepted_message_is_a_queued_turn_with_its_event(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let new = message(&ada, "k1");
    let accepted = store.accept(&new, at(3)).await.expect("accepted");
    let stored = Accepted::Stored {
        message_id: new.message_id,
        turn_id: new.turn_id,
        repeated: false,
    };
    assert_eq!(accepted, stored);
    let turn = store.turn(&ada, new.turn_id).await.expect("read");
    let turn = turn.expect("the turn");
    assert_eq!(turn.state, TurnState::Queued);
    assert_eq!(turn.message.text, "text of k1");
    assert_eq!(turn.message.message_id, new.message_id);
    assert_eq!(turn.message.sent_time, at(3));
    assert_eq!((turn.attempts, turn.epoch, turn.stopped), (0, None, false));
    let queued = EventBody::Queued {
        turn_id: new.turn_id,
        message_id: new.message_id,
    };
    assert_eq!(newest(&store, &ada).await, queued);
    assert_eq!(turn.version.0, 2, "after the event of the learner's making");
    let row = store.learner(&ada, at(4)).await.expect("read");
    assert_eq!(row.expect("the learner").last_activity_time, Some(at(3)));
}

pub async fn the_same_key_and_body_gets_the_same_answer(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let first = message(&ada, "k1");
    store.accept(&first, at(1)).await.expect("accepted");
    let again = store.accept(&message(&ada, "k1"), at(2)).await;
    let same = Accepted::Stored {
        message_id: first.message_id,
        turn_id: first.turn_id,
        repeated: true,
    };
    assert_eq!(again.expect("answered"), same);
    assert_eq!(story(&store, &ada).await, ["learner_created", "queued"]);
}

pub async fn the_same_key_with_another_body_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    accept(&store, &ada, "k1", 1).await;
    let mut other = message(&ada, "k1");
    other.body_hash = [9; 32];
    let answer = store.accept(&other, at(2)).await.expect("answered");
    assert_eq!(answer, Accepted::KeyReused);
    assert_eq!(story(&store, &ada).await, ["learner_created", "queued"]);
}

pub async fn two_learners_may_use_the_same_key(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let of_ada = accept(&store, &ada, "k1", 1).await;
    let of_bob = accept(&store, &bob, "k1", 2).await;
    assert_ne!(of_ada, of_bob);
}

pub async fn the_same_key_fifty_times_at_once_is_one_message(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let answers = at_once(50, |_| {
        let (store, new) = (store.clone(), message(&ada, "k1"));
        async move { store.accept(&new, at(1)).await.expect("answered") }
    })
    .await;
    let mut ids = HashSet::new();
    let mut first = 0;
    for answer in answers {
        let Accepted::Stored {
            message_id,
            turn_id,
            repeated,
        } = answer
        else {
            unreachable!("an equal call is stored, not {answer:?}");
        };
        ids.insert((message_id, turn_id));
        first += u32::from(!repeated);
    }
    assert_eq!((ids.len(), first), (1, 1));
    assert_eq!(story(&store, &ada).await, ["learner_created", "queued"]);
}

pub async fn a_full_queue_refuses_new_messages_and_still_answers_repeats(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let bounded = |key| {
        let mut new = message(&ada, key);
        new.max_queued = 2;
        new
    };
    for key in ["k1", "k2"] {
        store.accept(&bounded(key), at(1)).await.expect("accepted");
    }
    let third = store.accept(&bounded("k3"), at(2)).await;
    assert_eq!(third.expect("answered"), Accepted::QueueFull);
    let repeat = store.accept(&bounded("k2"), at(2)).await.expect("answered");
    assert!(matches!(repeat, Accepted::Stored { repeated: true, .. }));
    let turns = store.history(&ada, None, 10).await.expect("history");
    assert_eq!(turns.len(), 2, "nothing of a refused message stays");
}

pub async fn a_message_for_nobody_is_refused(store: SharedStore) {
    let answer = store.accept(&message(&id("nobody"), "k1"), at(1)).await;
    assert_eq!(answer.expect("answered"), Accepted::NoLearner);
}

pub async fn history_is_in_the_order_of_acceptance_and_pages_backwards(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    for number in 1..=5 {
        accept(&store, &ada, &format!("k{number}"), number).await;
        accept(&store, &bob, &format!("b{number}"), number).await;
    }
    let texts = |turns: &[crate::turns::Turn]| -> Vec<String> {
        turns.iter().map(|turn| turn.message.text.clone()).collect()
    };
    let newest = store.history(&ada, None, 2).await.expect("history");
    assert_eq!(texts(&newest), ["text of k4", "text of k5"]);
    let before = newest.first().map(|turn| turn.message.message_id);
    let older = store.history(&ada, before, 9).await.expect("history");
    assert_eq!(texts(&older), ["text of k1", "text of k2", "text of k3"]);
    let of_bob = store.history(&bob, before, 9).await.expect("history");
    assert_eq!(of_bob, [], "a foreign message is before nothing");
}

pub async fn a_turn_is_shown_to_its_own_learner_only(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let turn = accept(&store, &ada, "k1", 1).await;
    assert!(store.turn(&ada, turn).await.expect("read").is_some());
    assert_eq!(store.turn(&bob, turn).await.expect("read"), None);
    let stopped = store.request_stop(&bob, turn, at(2)).await;
    assert_eq!(stopped.expect("answered"), None);
}

pub async fn the_backlog_counts_open_turns_and_names_the_oldest(store: SharedStore) {
    assert_eq!(store.backlog().await.expect("counted"), (0, None));
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let first = accept(&store, &ada, "k1", 5).await;
    accept(&store, &bob, "k2", 6).await;
    assert_eq!(store.backlog().await.expect("counted"), (2, Some(at(5))));
    store
        .request_stop(&ada, first, at(7))
        .await
        .expect("stopped");
    assert_eq!(store.backlog().await.expect("counted"), (1, Some(at(6))));
}
