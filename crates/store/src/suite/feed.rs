//! The log: without holes for one learner, without skips for the reader of all.

use std::collections::{BTreeMap, BTreeSet};

use carrel_core::class::ClassSpec;
use carrel_core::event::{Cursor, Event};
use carrel_core::learner::{DesiredState, LearnerState, PodRef, Status};
use carrel_core::{ClassName, Epoch, EventVersion, LearnerId, NanoUsd, PodUid, ReservationId};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::fixture::{
    SHOWN_WITHIN, accept, at, at_once, claim, events, learner, message, new_learner, owner, turn_of,
};
use crate::SharedStore;
use crate::learners::{Created, NewLearner};
use crate::ledger::{NewReservation, Settlement};

pub async fn events_of_a_learner_are_numbered_without_holes(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    for generation in 1..=3 {
        turn_of(&store, &ada, 1, generation).await;
        turn_of(&store, &bob, 1, generation).await;
    }
    for learner in [&ada, &bob] {
        let all = events(&store, learner).await;
        let versions: Vec<u64> = all.iter().map(|event| event.version.0).collect();
        assert_eq!(versions, (1..=10).collect::<Vec<_>>());
        let page = store.events(learner, EventVersion(4), 3).await;
        assert_eq!(page.expect("read"), all[4..7]);
    }
}

/// Writes for one learner as the roles do: messages, claims, reservations and refusals between them.
async fn write(store: &SharedStore, learner: &LearnerId, rounds: u32) {
    for round in 0..rounds {
        let key = format!("k{round}");
        accept(store, learner, &key, 1).await;
        // Refused: its transaction ends without a trace.
        let mut reused = message(learner, &key);
        reused.body_hash = [0; 32];
        store.accept(&reused, at(1)).await.expect("answered");
        let turn = claim(store, learner, owner(), 100 * i64::from(round))
            .await
            .turn;
        let new = NewReservation {
            id: ReservationId(Uuid::now_v7()),
            learner: learner.clone(),
            epoch: None,
            model: "demo/tutor".to_owned(),
            amount: NanoUsd(3),
            per_day: None,
            per_month: None,
        };
        store.reserve(&new, at(1)).await.expect("answered");
        let cost = Settlement {
            cost: NanoUsd(2),
            input_tokens: 1,
            output_tokens: 1,
        };
        store.settle(new.id, &cost, at(1)).await.expect("settled");
        let stopped = store.request_stop(learner, turn.turn_id, at(2)).await;
        stopped.expect("answered").expect("a turn");
    }
}

/// Reads the whole log in small pages from the beginning: until all is written, read, and so many seen; or too long after it
/// was written.
async fn read(
    store: SharedStore,
    mut written: watch::Receiver<Option<Instant>>,
    events: usize,
) -> Vec<Event> {
    let mut changes = store.changes();
    let (mut place, mut seen) = (Cursor::default(), Vec::new());
    loop {
        let all_written = *written.borrow_and_update();
        let page = store.feed(place, 7).await.expect("read");
        let Some(last) = page.last() else {
            match all_written {
                Some(end) if seen.len() >= events || end.elapsed() > SHOWN_WITHIN => return seen,
                Some(_) => tokio::task::yield_now().await,
                None => tokio::select! {
                    _ = changes.recv() => {}
                    _ = written.changed() => {}
                },
            }
            continue;
        };
        assert!(page.is_sorted_by_key(|fed| fed.cursor));
        assert!(place < page[0].cursor);
        place = last.cursor;
        seen.extend(page.into_iter().map(|fed| fed.event));
    }
}

pub async fn a_reader_beside_many_writers_sees_every_event_once(store: SharedStore) {
    const WRITERS: u32 = 8;
    const ROUNDS: u32 = 12;
    const EVENTS: u32 = WRITERS * (1 + 3 * ROUNDS);
    let (done, written) = watch::channel(None);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        readers.spawn(read(store.clone(), written.clone(), EVENTS as usize));
    }
    at_once(WRITERS, |number| {
        let store = store.clone();
        async move {
            let learner = learner(&store, &format!("learner-{number}")).await;
            write(&store, &learner, ROUNDS).await;
        }
    })
    .await;
    done.send_replace(Some(Instant::now()));
    for seen in readers.join_all().await {
        let mut by_learner: BTreeMap<LearnerId, Vec<Event>> = BTreeMap::new();
        for event in seen {
            by_learner
                .entry(event.learner.clone())
                .or_default()
                .push(event);
        }
        assert_eq!(by_learner.len(), WRITERS as usize);
        for (learner, fed) in by_learner {
            let versions: Vec<u64> = fed.iter().map(|event| event.version.0).collect();
            let expected: Vec<u64> = (1..=1 + 3 * u64::from(ROUNDS)).collect();
            assert_eq!(versions, expected, "each once, in order");
            assert_eq!(fed, events(&store, &learner).await);
        }
    }
}

pub async fn a_hint_follows_an_append(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let mut changes = store.changes();
    accept(&store, &bob, "k1", 1).await;
    let hint = changes.recv().await.expect("a hint");
    assert_eq!(hint, bob);
    assert_eq!(
        events(&store, &bob).await.len(),
        2,
        "it was there before the hint"
    );
    accept(&store, &ada, "k2", 1).await;
    assert_eq!(changes.recv().await.expect("a hint"), ada);
}

/// Makes a learner that is seen so.
async fn seen(store: &SharedStore, name: &str, class: &ClassName, status: Status) -> LearnerId {
    let new = NewLearner {
        class: class.clone(),
        ..new_learner(name)
    };
    store.create_learner(&new, at(0)).await.expect("made");
    let asleep = Status::default();
    let put = store.put_status(&new.id, &asleep, &status, at(1));
    assert!(put.await.expect("written"));
    new.id
}

/// The learners that hints are given for until `last` has one.
async fn hinted(
    changes: &mut broadcast::Receiver<LearnerId>,
    last: &LearnerId,
) -> BTreeSet<LearnerId> {
    let mut hinted = BTreeSet::new();
    loop {
        let hint = changes.recv().await.expect("a hint");
        if hint == *last {
            return hinted;
        }
        hinted.insert(hint);
    }
}

pub async fn a_class_that_is_written_is_a_hint_for_those_of_it_who_wait_for_their_next_try(
    store: SharedStore,
) {
    let waiting = |state| Status {
        state,
        retry_time: Some(at(600)),
        ..Status::default()
    };
    let not_made = waiting(LearnerState::Failed);
    let died_after_it_was_ready = waiting(LearnerState::Asleep);
    let is_made = Status {
        retry_time: None,
        ..waiting(LearnerState::Waking)
    };
    let awake = Status {
        pod: Some(PodRef {
            name: "w-x2f9".to_owned(),
            uid: PodUid(Uuid::now_v7()),
            address: "unix:/run/w-x2f9".to_owned(),
        }),
        ..waiting(LearnerState::Ready)
    };
    let (class, other) = (new_learner("ada").class, "other".parse().expect("a name"));
    let failed = seen(&store, "failed", &class, not_made.clone()).await;
    let kept = seen(&store, "kept", &class, died_after_it_was_ready.clone()).await;
    let asked = seen(&store, "asked", &class, died_after_it_was_ready.clone()).await;
    let resting = seen(&store, "resting", &class, died_after_it_was_ready).await;
    seen(&store, "made", &class, is_made).await;
    seen(&store, "awake", &class, awake).await;
    seen(&store, "elsewhere", &other, not_made).await;
    let kept_awake = store.set_desired_state(&kept, DesiredState::Running);
    assert!(kept_awake.await.expect("answered"));
    assert!(store.wake_after(&asked, Epoch(0)).await.expect("answered"));
    let mut changes = store.changes();
    let spec = ClassSpec::default();
    store.put_class(&class, &spec).await.expect("written");
    accept(&store, &resting, "k1", 2).await;
    let all = hinted(&mut changes, &resting).await;
    assert_eq!(all, [asked, failed, kept].into(), "no other");
}

pub async fn a_learner_that_changes_class_or_aliases_is_a_hint(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let other = "other".parse().expect("a class's name");
    for (class, aliases) in [(Some(&other), None), (None, Some(&[][..]))] {
        let mut changes = store.changes();
        let changed = store.change_learner(&ada, class, aliases).await;
        assert_eq!(changed.expect("answered"), Some(Created::Same));
        accept(&store, &bob, &format!("{class:?}"), 1).await;
        let all = hinted(&mut changes, &bob).await;
        assert_eq!(all, [ada.clone()].into());
    }
}
