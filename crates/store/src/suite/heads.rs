//! The fence, older states taken anew, and keys.

use carrel_core::event::EventBody;
use carrel_core::{Epoch, Generation, LearnerId, NanoUsd, RepositoryId, ReservationId};
use uuid::Uuid;

use super::fixture::{
    accept, at, begin, claim, commit, committed, id, learner, newest, owner, running, snapshot,
    turn_of,
};
use crate::SharedStore;
use crate::heads::{Committed, Contact, Head, Restored, WrappedKey};
use crate::ledger::{NewReservation, Reserved};

pub async fn a_contact_raises_the_fence_and_reads_the_head(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 3, 1).await;
    let (head, repository) = store.head(&ada).await.expect("read").expect("a head");
    let current = Contact::Current { head, repository };
    for _ in 0..2 {
        let contact = store.contact(&ada, Epoch(5)).await.expect("answered");
        assert_eq!(contact, current);
    }
    let stale = store.contact(&ada, Epoch(4)).await.expect("answered");
    assert_eq!(stale, Contact::Stale { fence: Epoch(5) });
    let nobody = store.contact(&id("nobody"), Epoch(1)).await;
    assert_eq!(nobody.expect("answered"), Contact::NoLearner);
}

pub async fn the_fence_is_raised_by_every_signed_epoch_and_never_lowered(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let fence = || async {
        let row = store.learner(&ada, at(1)).await.expect("read");
        row.expect("the learner").fence.0
    };
    assert_eq!(fence().await, 0);
    store.contact(&ada, Epoch(2)).await.expect("contact");
    assert_eq!(fence().await, 2);
    committed(&store, &commit(&ada, 4, 1, None)).await;
    assert_eq!(fence().await, 4);
    let refused = store.commit(&commit(&ada, 5, 7, None), at(2)).await;
    assert!(matches!(
        refused.expect("answered"),
        Committed::HeadMoved { .. }
    ));
    assert_eq!(
        fence().await,
        5,
        "a refusal for another reason raises it too"
    );
    let reservation = NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: ada.clone(),
        epoch: Some(Epoch(6)),
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(1),
        per_day: None,
        per_month: None,
    };
    let held = store.reserve(&reservation, at(3)).await.expect("answered");
    assert!(matches!(held, Reserved::Held { .. }));
    assert_eq!(fence().await, 6);
    for lower in [1, 5] {
        store.contact(&ada, Epoch(lower)).await.expect("answered");
        assert_eq!(fence().await, 6);
    }
}

pub async fn a_fall_back_takes_an_older_state_as_a_new_generation(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    let second = turn_of(&store, &ada, 1, 2).await;
    let third = turn_of(&store, &ada, 1, 3).await;
    let stale = store
        .fall_back(&ada, Generation(2), Generation(1), at(30))
        .await;
    assert_eq!(stale.expect("answered"), None, "the head is elsewhere");
    let head = store
        .fall_back(&ada, Generation(3), Generation(1), at(31))
        .await;
    let expected = Head {
        generation: Generation(4),
        snapshot: Some(snapshot(1)),
    };
    assert_eq!(head.expect("answered"), Some(expected.clone()));
    assert_eq!(
        store.head(&ada).await.expect("read").expect("a head").0,
        expected
    );
    let event = EventBody::FellBack {
        from: Generation(3),
        to: Generation(1),
        generation: Generation(4),
        lost_turns: vec![second, third],
    };
    assert_eq!(newest(&store, &ada).await, event);
    let rows = store.generations(&ada).await.expect("history");
    let marks: Vec<_> = rows
        .iter()
        .map(|row| (row.generation.0, row.parent.0, row.damaged))
        .collect();
    assert_eq!(
        marks,
        [(4, 3, false), (3, 2, true), (2, 1, false), (1, 0, false)]
    );
    let row = store
        .turn(&ada, third)
        .await
        .expect("read")
        .expect("a turn");
    assert!(row.reply.is_some(), "a lost turn keeps its outcome");
    assert_eq!(store.waiting(at(900), 9).await.expect("listed"), []);
}

/// Claims and begins the next turn; what it was told.
async fn told(store: &SharedStore, ada: &LearnerId, key: &str, epoch: u64) -> Vec<String> {
    accept(store, ada, key, 40).await;
    let claimed = claim(store, ada, owner(), 41).await;
    let begun = begin(store, &claimed, epoch, 42).await;
    let told = begun.context.iter();
    told.map(|(text, reply)| format!("{text} → {reply}"))
        .collect()
}

pub async fn lost_turns_are_told_until_a_turn_commits(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    for generation in 1..=3 {
        turn_of(&store, &ada, 1, generation).await;
    }
    let fallen = store
        .fall_back(&ada, Generation(3), Generation(1), at(30))
        .await;
    fallen.expect("answered").expect("fallen back");
    let lost = ["text of key 2 → reply 2", "text of key 3 → reply 3"];
    assert_eq!(told(&store, &ada, "fails", 2).await, lost);
    let claimed = claim(&store, &ada, owner(), 200).await;
    let begun = begin(&store, &claimed, 3, 200).await;
    assert_eq!(begun.context.len(), 2, "another attempt is told again");
    let verdict = super::fixture::failure(carrel_core::turn::FailureCode::Timeout);
    let (turn, timing) = (claimed.turn.turn_id, claimed.turn.timing);
    let failed = store.fail(turn, claimed.lease, &verdict, timing, at(201));
    failed.await.expect("failed");
    assert_eq!(told(&store, &ada, "commits", 3).await, lost);
    let claimed = claim(&store, &ada, owner(), 300).await;
    let mut next = commit(&ada, 3, 5, Some(claimed.turn.turn_id));
    next.parent = Some(snapshot(1));
    committed(&store, &next).await;
    assert_eq!(told(&store, &ada, "after", 3).await, [""; 0]);
}

pub async fn lost_turns_are_told_again_when_the_telling_is_lost(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    turn_of(&store, &ada, 1, 2).await;
    let fallen = store
        .fall_back(&ada, Generation(2), Generation(1), at(30))
        .await;
    fallen.expect("answered").expect("fallen back");
    accept(&store, &ada, "told", 31).await;
    let claimed = claim(&store, &ada, owner(), 32).await;
    begin(&store, &claimed, 2, 33).await;
    let mut next = commit(&ada, 2, 4, Some(claimed.turn.turn_id));
    next.parent = Some(snapshot(1));
    committed(&store, &next).await;
    let fallen = store
        .fall_back(&ada, Generation(4), Generation(3), at(35))
        .await;
    fallen.expect("answered").expect("fallen back");
    let event = newest(&store, &ada).await;
    let EventBody::FellBack { lost_turns, .. } = event else {
        unreachable!("a fall-back, not {event:?}");
    };
    assert_eq!(
        lost_turns,
        [claimed.turn.turn_id],
        "lost now, not lost before"
    );
    let again = told(&store, &ada, "again", 3).await;
    assert_eq!(again, ["text of key 2 → reply 2", "text of told → reply 4"]);
}

pub async fn a_turn_claimed_before_a_fall_back_is_told_when_it_begins(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    let before = accept(&store, &ada, "before", 21).await;
    let claimed = claim(&store, &ada, owner(), 22).await;
    let fallen = store
        .fall_back(&ada, Generation(1), Generation(0), at(23))
        .await;
    fallen.expect("answered").expect("fallen back");
    let begun = begin(&store, &claimed, 2, 24).await;
    let lost = ("text of key 1".to_owned(), "reply 1".to_owned());
    assert_eq!(begun.context, [lost]);
    let started = newest(&store, &ada).await;
    assert!(
        matches!(
            started,
            EventBody::Started {
                lost_turns_told: 1,
                ..
            }
        ),
        "{started:?}"
    );
    let mut next = commit(&ada, 2, 3, Some(before));
    next.parent = None;
    committed(&store, &next).await;
    assert_eq!(told(&store, &ada, "after", 2).await, [""; 0]);
}

pub async fn a_turn_that_a_restore_brought_back_may_be_lost_again(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    turn_of(&store, &ada, 1, 1).await;
    let second = turn_of(&store, &ada, 1, 2).await;
    turn_of(&store, &ada, 1, 3).await;
    let fallen = store.fall_back(&ada, Generation(3), Generation(1), at(30));
    fallen.await.expect("answered").expect("fallen back");
    let restored = store.restore(&ada, Generation(2), None, at(31));
    let restored = restored.await.expect("answered");
    assert!(matches!(restored, Restored::Head(_)), "{restored:?}");
    let fallen = store.fall_back(&ada, Generation(5), Generation(1), at(32));
    fallen.await.expect("answered").expect("fallen back again");
    let event = EventBody::FellBack {
        from: Generation(5),
        to: Generation(1),
        generation: Generation(6),
        lost_turns: vec![second],
    };
    assert_eq!(newest(&store, &ada).await, event);
    let lost = ["text of key 2 → reply 2", "text of key 3 → reply 3"];
    assert_eq!(told(&store, &ada, "next", 2).await, lost);
}

pub async fn a_fall_back_to_nothing_is_an_empty_workspace(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let turn = turn_of(&store, &ada, 1, 1).await;
    let head = store
        .fall_back(&ada, Generation(1), Generation(0), at(30))
        .await;
    let empty = Head {
        generation: Generation(2),
        snapshot: None,
    };
    assert_eq!(head.expect("answered"), Some(empty));
    let event = EventBody::FellBack {
        from: Generation(1),
        to: Generation(0),
        generation: Generation(2),
        lost_turns: vec![turn],
    };
    assert_eq!(newest(&store, &ada).await, event);
    let row = store.learner(&ada, at(31)).await.expect("read");
    assert_eq!(row.expect("the learner").newest_snapshot, None);
}

pub async fn an_operator_restores_an_older_state(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let newest_of = || async {
        let row = store.newest_generation(&ada).await.expect("read");
        row.map(|row| (row.generation.0, row.snapshot, row.parent.0))
    };
    assert_eq!(newest_of().await, None);
    for generation in 1..=2 {
        turn_of(&store, &ada, 1, generation).await;
    }
    assert_eq!(newest_of().await, Some((2, Some(snapshot(2)), 1)));
    let head = store.restore(&ada, Generation(1), None, at(30)).await;
    assert_eq!(newest_of().await, Some((3, Some(snapshot(1)), 2)));
    let expected = Head {
        generation: Generation(3),
        snapshot: Some(snapshot(1)),
    };
    assert_eq!(head.expect("answered"), Restored::Head(expected));
    let event = EventBody::Restored {
        to: Generation(1),
        generation: Generation(3),
    };
    assert_eq!(newest(&store, &ada).await, event);
    assert_eq!(
        told(&store, &ada, "after", 2).await,
        [""; 0],
        "as was wished"
    );
    let late = store.commit(&commit(&ada, 2, 3, None), at(50)).await;
    assert!(matches!(
        late.expect("answered"),
        Committed::HeadMoved { .. }
    ));
}

pub async fn a_restore_that_comes_late_takes_nothing_from_a_newer_incarnation(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    for generation in 1..=2 {
        turn_of(&store, &ada, 1, generation).await;
    }
    let restore = |asleep| store.restore(&ada, Generation(1), Some(Epoch(asleep)), at(30));
    for generation in [3, 4] {
        let head = Head {
            generation: Generation(generation),
            snapshot: Some(snapshot(1)),
        };
        let again = restore(1).await.expect("answered");
        assert_eq!(again, Restored::Head(head), "nobody has woken since");
    }
    store.contact(&ada, Epoch(2)).await.expect("contact");
    let mut next = commit(&ada, 2, 5, None);
    next.parent = Some(snapshot(1));
    committed(&store, &next).await;
    let late = restore(1).await.expect("answered");
    assert_eq!(late, Restored::StaleEpoch { fence: Epoch(2) });
    let (head, _) = store.head(&ada).await.expect("read").expect("a head");
    assert_eq!(head.snapshot, Some(next.snapshot), "her work is there");
    let of_now = restore(2).await.expect("answered");
    assert!(matches!(of_now, Restored::Head(_)), "{of_now:?}");
}

pub async fn damaged_and_expired_generations_are_not_restored(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    for generation in 1..=4 {
        turn_of(&store, &ada, 1, generation).await;
    }
    let (damaged, expired) = (Generation(1), [Generation(2), Generation(3)]);
    store.mark_damaged(&ada, damaged).await.expect("marked");
    store.mark_expired(&ada, &expired).await.expect("marked");
    for gone in [1, 2, 3, 9] {
        let head = store.restore(&ada, Generation(gone), None, at(30)).await;
        let head = head.expect("answered");
        assert_eq!(head, Restored::Nothing, "generation {gone}");
    }
    let nobody = id("nobody");
    let nobody = store.restore(&nobody, Generation(1), Some(Epoch(1)), at(30));
    assert_eq!(nobody.await.expect("answered"), Restored::Nothing);
    let rows = store.generations(&ada).await.expect("history");
    let marks: Vec<_> = rows.iter().map(|row| (row.damaged, row.expired)).collect();
    let expected = [(false, false), (false, true), (false, true), (true, false)];
    assert_eq!(marks, expected, "newest first");
    running(&store, &ada, "goes on", 1).await;
}

pub async fn a_data_key_is_kept_once_rewrapped_by_compare_and_destroyed(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let key = |number: u8| WrappedKey {
        algorithm: format!("A{number}GCM"),
        key_id: format!("kek-{number}"),
        wrapped: vec![number; 40],
    };
    assert_eq!(store.wrapped_key(&ada).await.expect("read"), None);
    for offered in [1, 2] {
        let there = store.put_key_if_absent(&ada, &key(offered)).await;
        assert_eq!(there.expect("answered"), Some(key(1)), "the first stays");
    }
    let nobody = store.put_key_if_absent(&id("nobody"), &key(3)).await;
    assert_eq!(nobody.expect("answered"), None);
    let lost = store.rewrap_key(&ada, &key(2), &key(4)).await;
    assert!(!lost.expect("answered"));
    let done = store.rewrap_key(&ada, &key(1), &key(5)).await;
    assert!(done.expect("answered"));
    assert_eq!(store.wrapped_key(&ada).await.expect("read"), Some(key(5)));
    let row = store.learner(&ada, at(1)).await.expect("read");
    let repository = row.expect("ada is there").repository;
    let of_another_life = RepositoryId(Uuid::new_v4());
    let kept = store.destroy_key(&ada, of_another_life).await;
    kept.expect("nothing is destroyed");
    assert_eq!(store.wrapped_key(&ada).await.expect("read"), Some(key(5)));
    for _ in 0..2 {
        let destroyed = store.destroy_key(&ada, repository).await;
        destroyed.expect("destroyed");
        assert_eq!(store.wrapped_key(&ada).await.expect("read"), None);
    }
}
