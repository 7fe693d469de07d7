//! Money: never over, settled once, folded exactly.

use carrel_core::event::{EventBody, Usage};
use carrel_core::invariants::{UsageByModel, read_models_are_folds};
use carrel_core::{Epoch, LearnerId, NanoUsd, ReservationId};
use jiff::Timestamp;
use uuid::Uuid;

use super::fixture::{at, at_once, commit, events, id, learner, newest, running};
use crate::SharedStore;
use crate::heads::Committed;
use crate::ledger::{Left, NewReservation, Period, Reserved, Settlement, UsageBy, UsageRow};

/// A reservation with 100 a day and 250 a month.
fn reservation(learner: &LearnerId, amount: i64) -> NewReservation {
    NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: learner.clone(),
        epoch: None,
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(amount),
        per_day: Some(NanoUsd(100)),
        per_month: Some(NanoUsd(250)),
    }
}

fn settlement(cost: i64) -> Settlement {
    Settlement {
        cost: NanoUsd(cost),
        input_tokens: 11,
        output_tokens: 7,
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// What remains after a reservation that fits.
async fn held(store: &SharedStore, new: &NewReservation, now: Timestamp) -> i64 {
    let answer = store.reserve(new, now).await.expect("answered");
    let Reserved::Held {
        left: Some(left), ..
    } = answer
    else {
        unreachable!("held under a budget, not {answer:?}");
    };
    left.remaining.0
}

/// Reserves and settles at a time.
async fn spend(store: &SharedStore, learner: &LearnerId, cost: i64, now: Timestamp) {
    let new = reservation(learner, cost);
    held(store, &new, now).await;
    let settled = store.settle(new.id, &settlement(cost), now).await;
    assert!(settled.expect("settled"));
}

pub async fn what_is_held_and_settled_counts_against_the_day(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let first = reservation(&ada, 60);
    assert_eq!(held(&store, &first, at(1)).await, 40);
    let over = store.reserve(&reservation(&ada, 41), at(2)).await;
    let exhausted = Reserved::Exhausted {
        period: Period::Daily,
        resets_time: time("2026-07-10T00:00:00Z"),
        remaining: NanoUsd(40),
        limit: NanoUsd(100),
    };
    assert_eq!(over.expect("answered"), exhausted);
    store
        .settle(first.id, &settlement(25), at(3))
        .await
        .expect("settled");
    let row = store.learner(&ada, at(4)).await.expect("read");
    assert_eq!(row.expect("the learner").cost_today, NanoUsd(25));
    assert_eq!(held(&store, &reservation(&ada, 75), at(4)).await, 0);
    let tomorrow = time("2026-07-10T00:00:00Z");
    let row = store.learner(&ada, tomorrow).await.expect("read");
    assert_eq!(row.expect("the learner").cost_today, NanoUsd::ZERO);
    assert_eq!(held(&store, &reservation(&ada, 100), tomorrow).await, 0);
}

pub async fn what_other_days_spent_counts_against_the_month(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    for (day, cost) in [("2026-06-30", 100), ("2026-07-01", 100), ("2026-07-31", 90)] {
        spend(&store, &ada, cost, time(&format!("{day}T12:00:00Z"))).await;
    }
    let middle = time("2026-07-15T12:00:00Z");
    let over = store.reserve(&reservation(&ada, 61), middle).await;
    let exhausted = Reserved::Exhausted {
        period: Period::Monthly,
        resets_time: time("2026-08-01T00:00:00Z"),
        remaining: NanoUsd(60),
        limit: NanoUsd(250),
    };
    assert_eq!(over.expect("answered"), exhausted);
    assert_eq!(held(&store, &reservation(&ada, 60), middle).await, 0);
    let next = time("2026-08-01T00:00:00Z");
    assert_eq!(held(&store, &reservation(&ada, 60), next).await, 40);
}

pub async fn the_tightest_bound_is_named_with_what_still_fits(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let mut new = reservation(&ada, 500);
    new.per_month = Some(NanoUsd(30));
    let answer = store.reserve(&new, at(1)).await.expect("answered");
    let Reserved::Exhausted {
        period, remaining, ..
    } = answer
    else {
        unreachable!("it does not fit: {answer:?}");
    };
    assert_eq!((period, remaining), (Period::Monthly, NanoUsd(30)));
    // The month's budget is the larger one, and has less left.
    let bob = learner(&store, "bob").await;
    spend(&store, &bob, 90, time("2026-07-01T00:00:00Z")).await;
    let mut new = reservation(&bob, 10);
    new.per_month = Some(NanoUsd(150));
    let answer = store.reserve(&new, time("2026-07-09T00:00:00Z")).await;
    let Reserved::Held { left, .. } = answer.expect("answered") else {
        unreachable!("it fits");
    };
    let expected = Left {
        remaining: NanoUsd(50),
        limit: NanoUsd(150),
    };
    assert_eq!(left, Some(expected));
    let free = NewReservation {
        per_day: None,
        per_month: None,
        ..reservation(&ada, 9_000)
    };
    let unbounded = Reserved::Held {
        turn: None,
        left: None,
    };
    assert_eq!(
        store.reserve(&free, at(2)).await.expect("answered"),
        unbounded
    );
    let nobody = reservation(&id("nobody"), 1);
    let answer = store.reserve(&nobody, at(2)).await.expect("answered");
    assert_eq!(answer, Reserved::NoLearner);
}

pub async fn fifty_reservations_at_the_edge_are_never_over(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    spend(&store, &ada, 9, at(1)).await;
    let answers = at_once(50, |number| {
        let (store, new) = (store.clone(), reservation(&ada, 7));
        async move {
            let answer = store.reserve(&new, at(2)).await.expect("answered");
            let fits = matches!(answer, Reserved::Held { .. });
            if fits && number % 2 == 0 {
                let exact = settlement(7);
                store.settle(new.id, &exact, at(3)).await.expect("settled");
            }
            fits
        }
    })
    .await;
    let fitted = answers.iter().filter(|fits| **fits).count();
    assert_eq!(fitted, 13, "9 + 13 × 7 = 100");
}

pub async fn a_reservation_made_again_is_the_same_one(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let mut new = reservation(&ada, 60);
    new.epoch = Some(Epoch(3));
    for _ in 0..3 {
        let answer = store.reserve(&new, at(13)).await.expect("answered");
        let same = Reserved::Held {
            turn: Some(turn),
            left: Some(Left {
                remaining: NanoUsd(40),
                limit: NanoUsd(100),
            }),
        };
        assert_eq!(answer, same);
    }
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.usage.cost_nano_usd, NanoUsd(60), "counted once");
    assert_eq!(held(&store, &reservation(&ada, 40), at(14)).await, 0);
    let again = store.reserve(&new, at(15)).await.expect("answered");
    assert!(
        matches!(again, Reserved::Held { .. }),
        "it is held already, whatever is left: {again:?}"
    );
    let exact = settlement(60);
    let settled = store.settle(new.id, &exact, at(16)).await;
    assert!(settled.expect("settled"));
}

pub async fn a_reservation_is_settled_once(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let new = reservation(&ada, 60);
    held(&store, &new, at(1)).await;
    let id = new.id;
    let answers = at_once(10, |number| {
        let store = store.clone();
        async move {
            let settlement = settlement(20 + i64::from(number));
            store
                .settle(id, &settlement, at(2))
                .await
                .expect("answered")
        }
    })
    .await;
    assert_eq!(answers.iter().filter(|settled| **settled).count(), 1);
    let charged = events(&store, &ada).await;
    let charged = charged
        .iter()
        .filter(|event| matches!(event.body, EventBody::Charged { .. }));
    assert_eq!(charged.count(), 1);
    let unknown = ReservationId(Uuid::now_v7());
    let answer = store.settle(unknown, &settlement(1), at(3)).await;
    assert!(!answer.expect("answered"));
}

pub async fn a_settlement_above_its_reservation_is_charged_in_full(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let new = reservation(&ada, 60);
    held(&store, &new, at(1)).await;
    store
        .settle(new.id, &settlement(130), at(2))
        .await
        .expect("settled");
    let charged = EventBody::Charged {
        model: "demo/tutor".to_owned(),
        class: "free".parse().expect("a class's name"),
        cost: NanoUsd(130),
        input_tokens: 11,
        output_tokens: 7,
    };
    assert_eq!(newest(&store, &ada).await, charged);
    let answer = store.reserve(&reservation(&ada, 1), at(3)).await;
    let answer = answer.expect("answered");
    let Reserved::Exhausted { remaining, .. } = answer else {
        unreachable!("nothing is left: {answer:?}");
    };
    assert_eq!(remaining, NanoUsd::ZERO, "never negative");
}

pub async fn orphans_are_settled_at_what_was_reserved(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let (old, young) = (reservation(&ada, 30), reservation(&ada, 50));
    held(&store, &old, at(1)).await;
    held(&store, &young, at(100)).await;
    let swept = store.sweep_reservations(at(100), at(200)).await;
    assert_eq!(swept.expect("swept"), 1);
    let late = store.settle(old.id, &settlement(1), at(201)).await;
    assert!(!late.expect("answered"));
    let row = store.learner(&ada, at(201)).await.expect("read");
    assert_eq!(row.expect("the learner").cost_today, NanoUsd(30));
    let EventBody::Charged { cost, .. } = newest(&store, &ada).await else {
        unreachable!("a sweep charges");
    };
    assert_eq!(cost, NanoUsd(30));
    assert_eq!(held(&store, &reservation(&ada, 20), at(202)).await, 0);
}

pub async fn a_turn_used_what_was_reserved_or_settled_while_it_ran(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    spend(&store, &ada, 5, at(1)).await;
    let (turn, _) = running(&store, &ada, "k1", 3).await;
    let [settled, open, foreign] = [20, 30, 40].map(|amount| NewReservation {
        epoch: Some(Epoch(3)),
        per_day: None,
        ..reservation(&ada, amount)
    });
    let of_turn = store.reserve(&settled, at(13)).await.expect("answered");
    let Reserved::Held { turn: counted, .. } = of_turn else {
        unreachable!("it fits: {of_turn:?}");
    };
    assert_eq!(counted, Some(turn));
    store.reserve(&open, at(13)).await.expect("answered");
    store
        .settle(settled.id, &settlement(12), at(14))
        .await
        .expect("settled");
    let used = Usage {
        input_tokens: 11,
        output_tokens: 7,
        cost_nano_usd: NanoUsd(12 + 30),
    };
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.usage, used);
    let ending = commit(&ada, 3, 1, Some(turn));
    let answer = store.commit(&ending, at(20)).await.expect("answered");
    let Committed::Committed { usage, .. } = answer else {
        unreachable!("committed, not {answer:?}");
    };
    assert_eq!(usage, used);
    store
        .settle(open.id, &settlement(1), at(21))
        .await
        .expect("settled");
    let after = store.reserve(&foreign, at(22)).await.expect("answered");
    assert!(matches!(after, Reserved::Held { turn: None, .. }));
    let row = store.turn(&ada, turn).await.expect("read").expect("a turn");
    assert_eq!(row.usage, used, "as its end said");
}

pub async fn a_reservation_below_the_fence_is_refused(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    store.contact(&ada, Epoch(4)).await.expect("contact");
    let mut new = reservation(&ada, 1);
    new.epoch = Some(Epoch(3));
    let answer = store.reserve(&new, at(1)).await.expect("answered");
    assert_eq!(answer, Reserved::StaleEpoch { fence: Epoch(4) });
    assert_eq!(held(&store, &reservation(&ada, 100), at(2)).await, 0);
}

pub async fn what_costs_nothing_passes_the_fence_too(store: SharedStore) {
    let ada = learner(&store, "ada").await;
    let refused_by = async |epoch| {
        store
            .pass_fence(&ada, Epoch(epoch))
            .await
            .expect("answered")
    };
    assert_eq!(refused_by(5).await, None);
    assert_eq!(refused_by(4).await, Some(Epoch(5)), "it was not raised");
    assert_eq!(refused_by(5).await, None);
    let mut new = reservation(&ada, 1);
    new.epoch = Some(Epoch(4));
    let answer = store.reserve(&new, at(1)).await.expect("answered");
    assert_eq!(answer, Reserved::StaleEpoch { fence: Epoch(5) });
}

/// Three days of two learners with two models; `bob` changes class in between.
async fn three_days(store: &SharedStore) -> (LearnerId, LearnerId) {
    let (ada, bob) = (learner(store, "ada").await, learner(store, "bob").await);
    let paid = "paid".parse().expect("a class's name");
    for (number, day) in [(1, "2026-07-01"), (2, "2026-07-02"), (3, "2026-07-03")] {
        let noon = time(&format!("{day}T12:30:00Z"));
        spend(store, &ada, number, noon).await;
        let mut new = reservation(&bob, 10 * number);
        "other/model".clone_into(&mut new.model);
        held(store, &new, noon).await;
        let exact = settlement(10 * number);
        store.settle(new.id, &exact, noon).await.expect("settled");
        let changed = store.change_learner(&bob, Some(&paid), None).await;
        changed.expect("changed");
    }
    (ada, bob)
}

/// The usage that the store keeps is the fold of these learners' events.
async fn is_folded_from(store: &SharedStore, learners: [&LearnerId; 2]) {
    let (since, until) = (time("2026-07-01T00:00:00Z"), time("2026-07-31T00:00:00Z"));
    let rows = store.usage(UsageBy::Model, None, since, until).await;
    let kept = rows.expect("read").into_iter().map(|row| {
        let usage = Usage {
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_nano_usd: row.cost_nano_usd,
        };
        (row.key, usage)
    });
    let kept: UsageByModel = kept.collect();
    let mut bodies = Vec::new();
    for learner in learners {
        let events = events(store, learner).await;
        bodies.extend(events.into_iter().map(|event| event.body));
    }
    assert!(read_models_are_folds(&kept, &bodies), "{kept:?}");
}

async fn costs(
    store: &SharedStore,
    by: UsageBy,
    learner: Option<&LearnerId>,
    (since, until): (&str, &str),
) -> Vec<(String, u64, i64)> {
    let rows = store.usage(by, learner, time(since), time(until)).await;
    let rows = rows.expect("read").into_iter();
    rows.map(|row: UsageRow| {
        assert_eq!(row.input_tokens, 11 * row.calls);
        assert_eq!(row.output_tokens, 7 * row.calls);
        (row.key, row.calls, row.cost_nano_usd.0)
    })
    .collect()
}

fn rows(expected: &[(&str, u64, i64)]) -> Vec<(String, u64, i64)> {
    let owned = |(key, calls, cost): &(&str, u64, i64)| ((*key).to_owned(), *calls, *cost);
    expected.iter().map(owned).collect()
}

pub async fn usage_is_summed_by_every_key(store: SharedStore) {
    let (ada, bob) = three_days(&store).await;
    is_folded_from(&store, [&ada, &bob]).await;
    let all = ("2026-07-01T00:00:00Z", "2026-07-31T00:00:00Z");
    let by = |by| costs(&store, by, None, all);
    assert_eq!(
        by(UsageBy::Learner).await,
        rows(&[("ada", 3, 6), ("bob", 3, 60)])
    );
    assert_eq!(
        by(UsageBy::Class).await,
        rows(&[("free", 4, 16), ("paid", 2, 50)])
    );
    let models = [("demo/tutor", 3, 6), ("other/model", 3, 60)];
    assert_eq!(by(UsageBy::Model).await, rows(&models));
    let days = [
        ("2026-07-01", 2, 11),
        ("2026-07-02", 2, 22),
        ("2026-07-03", 2, 33),
    ];
    assert_eq!(by(UsageBy::Day).await, rows(&days));
    let of_bob = costs(&store, UsageBy::Class, Some(&bob), all).await;
    assert_eq!(of_bob, rows(&[("free", 1, 10), ("paid", 2, 50)]));
    let second = ("2026-07-02T12:00:00Z", "2026-07-03T12:00:00Z");
    let narrow = costs(&store, UsageBy::Day, None, second).await;
    assert_eq!(narrow, rows(&[("2026-07-02", 2, 22)]), "until is not in it");
    let touched = ("2026-07-02T12:59:00Z", "2026-07-03T12:00:01Z");
    let wide = costs(&store, UsageBy::Day, None, touched).await;
    assert_eq!(wide, rows(&days[1..]), "whole hours that are touched");
}

pub async fn a_call_that_used_nothing_is_not_counted(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    let now = time("2026-07-01T12:30:00Z");
    spend(&store, &ada, 5, now).await;
    // What is free is a call all the same.
    let free = reservation(&ada, 0);
    held(&store, &free, now).await;
    let settled = store.settle(free.id, &settlement(0), now).await;
    assert!(settled.expect("settled"));
    for refused in [reservation(&ada, 9), reservation(&bob, 9)] {
        held(&store, &refused, now).await;
        let nothing = Settlement::default();
        let settled = store.settle(refused.id, &nothing, now).await;
        assert!(settled.expect("settled"));
    }
    let all = ("2026-07-01T00:00:00Z", "2026-07-31T00:00:00Z");
    let expected = rows(&[("ada", 2, 5)]);
    let folded = costs(&store, UsageBy::Learner, None, all).await;
    assert_eq!(folded, expected);
    store.rebuild_usage().await.expect("rebuilt");
    let anew = costs(&store, UsageBy::Learner, None, all).await;
    assert_eq!(anew, expected, "folded anew");
}

pub async fn usage_rebuilds_equal(store: SharedStore) {
    let (ada, bob) = three_days(&store).await;
    let all = ("2026-07-01T00:00:00Z", "2026-07-31T00:00:00Z");
    let before = costs(&store, UsageBy::Learner, None, all).await;
    store.rebuild_usage().await.expect("rebuilt");
    assert_eq!(costs(&store, UsageBy::Learner, None, all).await, before);
    spend(&store, &ada, 4, time("2026-07-20T01:00:00Z")).await;
    let beside = at_once(8, |number| {
        let store = store.clone();
        async move {
            if number % 2 == 0 {
                store.rebuild_usage().await.expect("rebuilt");
            } else {
                let all = ("2026-07-01T00:00:00Z", "2026-07-31T00:00:00Z");
                costs(&store, UsageBy::Learner, None, all).await;
            }
        }
    });
    beside.await;
    let after = costs(&store, UsageBy::Learner, None, all).await;
    assert_eq!(after, rows(&[("ada", 4, 10), ("bob", 3, 60)]));
    is_folded_from(&store, [&ada, &bob]).await;
}
