//! Erasing: in repeatable steps, to a tombstone that keeps the fence.

use carrel_core::event::{Cursor, EventBody};
use carrel_core::learner::{DesiredState, LearnerState, Status};
use carrel_core::turn::{FailureCode, TurnState};
use carrel_core::{ClassName, Epoch, Generation, LearnerId, NanoUsd, ReservationId};
use uuid::Uuid;

use super::fixture::{
    accept, at, begin, claim, commit, events, learner, log, message, new_learner, newest, owner,
    running, turn_of,
};
use crate::SharedStore;
use crate::access::{SecretKind, Subject};
use crate::heads::{Committed, Contact, WrappedKey};
use crate::learners::{Alias, Created};
use crate::ledger::{NewReservation, Reserved, Settlement, UsageBy};
use crate::turns::Accepted;

fn reservation(learner: &LearnerId, epoch: Option<Epoch>) -> NewReservation {
    NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: learner.clone(),
        epoch,
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(9),
        per_day: None,
        per_month: None,
    }
}

fn key() -> WrappedKey {
    WrappedKey {
        algorithm: "A256GCM".to_owned(),
        key_id: "kek-1".to_owned(),
        wrapped: vec![3; 40],
    }
}

/// A learner with something in every corner of the store.
async fn full(store: &SharedStore, name: &str) -> LearnerId {
    let mut new = new_learner(name);
    new.aliases = vec![Alias {
        channel: "whatsapp".to_owned(),
        external_id: format!("{name} elsewhere"),
    }];
    store.create_learner(&new, at(0)).await.expect("made");
    let id = new.id;
    store.put_key_if_absent(&id, &key()).await.expect("kept");
    let subject = Subject::Learner(id.clone());
    let mut hash = [0; 32];
    hash.iter_mut().zip(name.bytes()).for_each(|(h, b)| *h = b);
    let granted = store.grant(hash, SecretKind::Token, &subject, at(0), at(9_000));
    assert!(granted.await.expect("answered"));
    turn_of(store, &id, 1, 1).await;
    turn_of(store, &id, 1, 2).await;
    let fallen = store
        .fall_back(&id, Generation(2), Generation(1), at(25))
        .await;
    fallen.expect("answered").expect("fallen back");
    let mut elsewhere = message(&id, "elsewhere");
    "whatsapp".clone_into(&mut elsewhere.channel);
    store.accept(&elsewhere, at(26)).await.expect("accepted");
    let stopped = store.request_stop(&id, elsewhere.turn_id, at(27)).await;
    stopped.expect("answered").expect("a turn");
    running(store, &id, "open", 2).await;
    let [settled, held] = [(); 2].map(|()| reservation(&id, Some(Epoch(2))));
    for new in [&settled, &held] {
        let answer = store.reserve(new, at(28)).await.expect("answered");
        assert!(matches!(answer, Reserved::Held { .. }));
    }
    let cost = Settlement {
        cost: NanoUsd(5),
        input_tokens: 1,
        output_tokens: 2,
    };
    store
        .settle(settled.id, &cost, at(29))
        .await
        .expect("settled");
    id
}

pub async fn a_learner_is_open_until_it_is_closed(store: SharedStore) {
    learner(&store, "bob").await;
    let ada = full(&store, "ada").await;
    let is_open = async || store.is_open(&ada).await.expect("read");
    assert!(is_open().await);
    store.close_learner(&ada, at(50)).await.expect("closed");
    assert!(!is_open().await);
    store.erase_learner(&ada, at(60)).await.expect("erased");
    assert!(!is_open().await);
    let bob = "bob".parse().expect("a label");
    assert!(store.is_open(&bob).await.expect("read"));
}

pub async fn a_closed_learner_takes_nothing_more(store: SharedStore) {
    let ada = full(&store, "ada").await;
    assert!(store.close_learner(&ada, at(40)).await.expect("closed"));
    let row = store.learner(&ada, at(41)).await.expect("read");
    let row = row.expect("still there");
    assert!(row.desired.deleting);
    assert_eq!(row.fence, Epoch(3), "above every epoch so far");
    assert!(store.close_learner(&ada, at(41)).await.expect("repeated"));
    let row = store.learner(&ada, at(41)).await.expect("read");
    assert_eq!(row.expect("still there").fence, Epoch(3), "raised once");

    for key in ["new", "key 1"] {
        let answer = store.accept(&message(&ada, key), at(42)).await;
        assert_eq!(answer.expect("answered"), Accepted::NoLearner);
    }
    let contact = store.contact(&ada, Epoch(9)).await;
    assert_eq!(contact.expect("answered"), Contact::NoLearner);
    let answer = store.commit(&commit(&ada, 9, 4, None), at(42)).await;
    assert_eq!(answer.expect("answered"), Committed::NoLearner);
    let answer = store.reserve(&reservation(&ada, None), at(42)).await;
    assert_eq!(answer.expect("answered"), Reserved::NoLearner);
    let subject = Subject::Learner(ada.clone());
    let granted = store.grant([8; 32], SecretKind::Token, &subject, at(42), at(99));
    assert!(!granted.await.expect("answered"));
    let mut hash = [0; 32];
    hash.iter_mut().zip(b"ada").for_each(|(h, b)| *h = *b);
    let known = store.subject(hash, SecretKind::Token, at(42)).await;
    assert_eq!(known.expect("read"), None, "its token is revoked");
    assert!(!store.wake_after(&ada, Epoch(8)).await.expect("answered"));
    let state = DesiredState::Running;
    assert!(
        !store
            .set_desired_state(&ada, state)
            .await
            .expect("answered")
    );
    let class: ClassName = "paid".parse().expect("a class's name");
    let changed = store.change_learner(&ada, Some(&class), None).await;
    assert_eq!(changed.expect("answered"), Some(Created::StillErasing));
    let again = store.create_learner(&new_learner("ada"), at(42)).await;
    assert_eq!(again.expect("answered"), Created::StillErasing);
    let items = store.claim_outbox("whatsapp", at(43), at(99), 9).await;
    assert_eq!(items.expect("claimed"), []);
}

pub async fn closing_fails_the_open_turns(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (first, lease) = running(&store, &ada, "k1", 3).await;
    let second = accept(&store, &ada, "k2", 13).await;
    store.close_learner(&ada, at(14)).await.expect("closed");
    for turn in [first, second] {
        let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
        assert_eq!(row.state, TurnState::Failed);
        let failure = row.failure.expect("a failure");
        assert_eq!(failure.code, FailureCode::LearnerClosed);
    }
    let EventBody::Failed { turn_id, .. } = newest(&store, &ada).await else {
        unreachable!("the newest event is a failure");
    };
    assert_eq!(turn_id, second);
    let gone = store.renew(&[(first, lease)], at(99)).await;
    assert_eq!(gone.expect("answered"), [first]);
    let seen = Status {
        state: LearnerState::Deleting,
        ..Status::default()
    };
    let written = store
        .put_status(&ada, &Status::default(), &seen, at(15))
        .await;
    assert!(written.expect("answered"), "its end is still seen");
}

pub async fn an_erased_learner_leaves_nothing_behind(store: SharedStore) {
    let ada = full(&store, "ada").await;
    store.close_learner(&ada, at(40)).await.expect("closed");
    for second in [41, 42] {
        store.erase_learner(&ada, at(second)).await.expect("erased");
        assert_eq!(store.learner(&ada, at(50)).await.expect("read"), None);
    }
    assert!(!store.close_learner(&ada, at(43)).await.expect("answered"));
    assert_eq!(events(&store, &ada).await, []);
    assert_eq!(store.feed(Cursor::default(), 100).await.expect("read"), []);
    assert_eq!(store.history(&ada, None, 9).await.expect("read"), []);
    assert_eq!(store.generations(&ada).await.expect("read"), []);
    assert_eq!(store.wrapped_key(&ada).await.expect("read"), None);
    let elsewhere = Alias {
        channel: "whatsapp".to_owned(),
        external_id: "ada elsewhere".to_owned(),
    };
    let found = store.learner_by_alias(&elsewhere).await.expect("read");
    assert_eq!(found, None);
    assert_eq!(store.backlog().await.expect("counted"), (0, None));
    let swept = store.sweep_reservations(at(900), at(900)).await;
    assert_eq!(swept.expect("swept"), 0);
    let usage = store.usage(UsageBy::Learner, None, at(0), at(900)).await;
    assert_eq!(usage.expect("read"), []);
}

pub async fn a_learner_made_anew_starts_empty_above_the_fence(store: SharedStore) {
    let ada = full(&store, "ada").await;
    let before = store.learner(&ada, at(39)).await.expect("read");
    let before = before.expect("the learner").repository;
    let assigned = Status {
        epoch: Epoch(7),
        ..Status::default()
    };
    let written = store
        .put_status(&ada, &Status::default(), &assigned, at(39))
        .await;
    assert!(written.expect("answered"));
    store.close_learner(&ada, at(40)).await.expect("closed");
    store.erase_learner(&ada, at(41)).await.expect("erased");
    let made = store.create_learner(&new_learner("ada"), at(50)).await;
    assert_eq!(made.expect("made"), Created::New);
    store.erase_learner(&ada, at(50)).await.expect("repeated");
    let row = store.learner(&ada, at(51)).await.expect("read");
    let row = row.expect("a repeated last step leaves its namesake alone");
    assert_eq!((row.fence, row.status.epoch), (Epoch(8), Epoch(8)));
    assert_ne!(row.repository, before, "it starts empty");
    assert_eq!(row.newest_snapshot, None);
    let stale = store.contact(&ada, Epoch(7)).await.expect("answered");
    assert_eq!(stale, Contact::Stale { fence: Epoch(8) });
    assert_eq!(events(&store, &ada).await.len(), 1);
    let turn = accept(&store, &ada, "key 1", 52).await;
    let claimed = claim(&store, &ada, owner(), 53).await;
    let begun = begin(&store, &claimed, 9, 54).await;
    assert_eq!((claimed.turn.turn_id, begun.context), (turn, vec![]));
}

pub async fn erased_repositories_are_listed_until_they_are_swept(store: SharedStore) {
    let mut repositories = Vec::new();
    for second in [10, 20] {
        let ada = learner(&store, "ada").await;
        let row = store.learner(&ada, at(1)).await.expect("read");
        repositories.push(row.expect("the learner").repository);
        store.close_learner(&ada, at(second)).await.expect("closed");
        store.erase_learner(&ada, at(second)).await.expect("erased");
    }
    let listed = |before| {
        let store = store.clone();
        async move { store.erased_repositories(at(before)).await.expect("read") }
    };
    assert_eq!(listed(10).await, []);
    assert_eq!(listed(11).await, repositories[..1]);
    assert_eq!(listed(99).await, repositories);
    let swept = store.swept_repository(repositories[0]).await;
    swept.expect("kept");
    assert_eq!(listed(99).await, repositories[1..]);
}

pub async fn erasing_disturbs_no_neighbour_and_no_reader(store: SharedStore) {
    let (ada, bob) = (full(&store, "ada").await, full(&store, "bob").await);
    let of_bob = events(&store, &bob).await;
    let both = of_bob.len() + events(&store, &ada).await.len();
    let read = log(&store, Cursor::default(), both).await;
    let place = read.last().expect("events").cursor;
    store.close_learner(&bob, at(39)).await.expect("closed");
    let shut = events(&store, &bob).await;
    assert_eq!(shut[..of_bob.len()], of_bob);
    store.close_learner(&ada, at(40)).await.expect("closed");
    store.erase_learner(&ada, at(41)).await.expect("erased");
    assert_eq!(events(&store, &bob).await, shut);
    assert_eq!(store.wrapped_key(&bob).await.expect("read"), Some(key()));
    assert_eq!(store.generations(&bob).await.expect("read").len(), 3);
    let usage = store.usage(UsageBy::Learner, None, at(0), at(900)).await;
    let usage = usage.expect("read");
    let keys: Vec<_> = usage.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["bob"]);
    store.erase_learner(&bob, at(42)).await.expect("erased");
    let eve = learner(&store, "eve").await;
    let news = log(&store, place, 1).await;
    let of_eve: Vec<_> = news.iter().map(|fed| &fed.event.learner).collect();
    assert_eq!(of_eve, [&eve], "places are never used twice");
}
