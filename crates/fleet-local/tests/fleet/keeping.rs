//! A learner is looked after whatever happens to the store, to its keeper and to the whole fleet.

use std::sync::atomic::Ordering;
use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{ConditionStatus, DesiredState, LearnerState, Status};
use carrel_core::lifecycle::{MOST_UNASKED, names};
use carrel_protocol::fleet::Fleet as _;
use carrel_protocol::sidecar::Phase;
use carrel_store::learners::Created;
use carrel_testkit::until;
use jiff::Timestamp;
use sqlx::{Connection as _, SqliteConnection};

use crate::Outcome;
use crate::bed::{Bed, CLOCK_BROKEN, CLOCK_READ, PLENTY, SOON, is, kill, lives, tell};
use crate::stand_in::{AT_WORK, Told};

crate::tests![
    the_pod_of_a_learner_goes_on_while_the_store_is_away_and_nothing_is_lost,
    a_learner_whose_keeper_panicked_is_looked_after_again,
    one_whose_keeper_panicked_before_it_had_a_pod_is_looked_after_when_somebody_waits,
    one_that_is_seen_at_work_first_is_not_stored_as_if_it_worked_for_ever,
    a_drain_ends_what_does_not_fall_asleep_before_it_returns,
    a_learner_that_its_document_keeps_asleep_is_not_woken_and_says_so,
    one_whose_agents_die_after_they_were_ready_is_tried_at_once_when_its_class_or_document_changes,
];

const BUSY: Told = Told {
    phase: Phase::Busy,
    quiet_since: None,
};
const READY: Told = Told {
    phase: Phase::Ready,
    quiet_since: None,
};

async fn one_that_is_seen_at_work_first_is_not_stored_as_if_it_worked_for_ever() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let learner = bed.ordinary(AT_WORK).await;
    bed.wake(&learner, 0).await;
    let status = bed.until(&learner, is(LearnerState::Busy)).await;
    assert_eq!(bed.stored(&learner).await.state, LearnerState::Ready);
    tell(&status, READY).await;
    bed.until(&learner, is(LearnerState::Ready)).await;
    assert_eq!(bed.stored(&learner).await.state, LearnerState::Ready);
    Outcome::Passed
}

async fn the_pod_of_a_learner_goes_on_while_the_store_is_away_and_nothing_is_lost() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.ordinary("ada").await;
    let awake = bed.awake(&ada).await;
    let mut file = SqliteConnection::connect(bed.file.to_str().unwrap())
        .await
        .unwrap();
    // No learner can be read or written.
    sqlx::query("ALTER TABLE learner RENAME TO learner_away")
        .execute(&mut file)
        .await
        .unwrap();
    let before = CLOCK_READ.load(Ordering::SeqCst);
    tell(&awake, BUSY).await;
    // Hearing of the turn takes a few; the rest are looks, one after another.
    until("it looked in vain", || async {
        CLOCK_READ.load(Ordering::SeqCst) >= before + 8
    })
    .await;
    assert!(bed.fleet.wake(&ada, Epoch(0)).await.is_err());
    assert!(lives(&awake).await, "its turn goes on");
    sqlx::query("ALTER TABLE learner_away RENAME TO learner")
        .execute(&mut file)
        .await
        .unwrap();
    let busy = bed.until(&ada, is(LearnerState::Busy)).await;
    assert_eq!((busy.epoch, &busy.pod), (Epoch(1), &awake.pod));
    tell(&awake, READY).await;
    bed.until(&ada, is(LearnerState::Ready)).await;
    bed.fleet.sleep(&ada).await.unwrap();
    bed.until(&ada, is(LearnerState::Asleep)).await;
    let stored = bed.stored(&ada).await;
    assert_eq!(
        (stored.epoch, stored.state),
        (Epoch(1), LearnerState::Asleep)
    );
    let risk = stored.condition(names::DATA_AT_RISK).unwrap();
    assert_eq!(risk.status, ConditionStatus::False, "{risk:?}");
    Outcome::Passed
}

async fn a_learner_whose_keeper_panicked_is_looked_after_again() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.ordinary("ada").await;
    let awake = bed.awake(&ada).await;
    CLOCK_BROKEN.store(true, Ordering::SeqCst);
    // The same wish again changes nothing; the keeper looks.
    bed.wake(&ada, 0).await;
    until("its keeper panicked", || async {
        !CLOCK_BROKEN.load(Ordering::SeqCst) && !lives(&awake).await
    })
    .await;
    // Whoever waits for the turn that ran sees its end, and the next wish is heard.
    bed.until(&ada, is(LearnerState::Asleep)).await;
    bed.wake(&ada, 1).await;
    let again = bed.until(&ada, is(LearnerState::Ready)).await;
    assert_eq!(again.epoch, Epoch(2));
    Outcome::Passed
}

async fn one_whose_keeper_panicked_before_it_had_a_pod_is_looked_after_when_somebody_waits()
-> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.ordinary("ada").await;
    CLOCK_BROKEN.store(true, Ordering::SeqCst);
    bed.wake(&ada, 0).await;
    until("its keeper panicked", || async {
        !CLOCK_BROKEN.load(Ordering::SeqCst)
    })
    .await;
    // Nobody asks for it again: who waits has done so.
    let awake = bed.until(&ada, is(LearnerState::Ready)).await;
    assert_eq!(awake.epoch, Epoch(1));
    Outcome::Passed
}

async fn a_drain_ends_what_does_not_fall_asleep_before_it_returns() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let (ada, bob) = (bed.ordinary("ada").await, bed.ordinary("bob").await);
    let (busy, quiet) = (bed.awake(&ada).await, bed.awake(&bob).await);
    tell(&busy, BUSY).await;
    bed.until(&ada, is(LearnerState::Busy)).await;
    let drained = bed.fleet.drain(Duration::from_millis(500));
    tokio::time::timeout(SOON, drained).await.unwrap();
    assert!(!lives(&busy).await && !lives(&quiet).await);
    assert_eq!(bed.stored(&bob).await.state, LearnerState::Asleep);
    let read = CLOCK_READ.load(Ordering::SeqCst);
    bed.wake(&ada, 1).await;
    assert_eq!(
        CLOCK_READ.load(Ordering::SeqCst),
        read,
        "nobody is left who would look"
    );
    Outcome::Passed
}

async fn a_learner_that_its_document_keeps_asleep_is_not_woken_and_says_so() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.ordinary("ada").await;
    let set = bed.store.set_desired_state(&ada, DesiredState::Asleep);
    assert!(set.await.unwrap());
    let before = bed.stored(&ada).await;
    bed.wake(&ada, 0).await;
    let kept = bed.until(&ada, |status| status.detail == names::KEPT_ASLEEP);
    assert_eq!(kept.await.state, LearnerState::Asleep);
    assert_eq!(bed.stored(&ada).await, before, "it is written nowhere");
    bed.store
        .set_desired_state(&ada, DesiredState::Auto)
        .await
        .unwrap();
    bed.wake(&ada, 0).await;
    bed.until(&ada, is(LearnerState::Ready)).await;
    Outcome::Passed
}

async fn one_whose_agents_die_after_they_were_ready_is_tried_at_once_when_its_class_or_document_changes()
-> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.ordinary("ada").await;
    // It has died so often before that the next time it waits for long.
    let died_before = Status {
        young_deaths: MOST_UNASKED - 1,
        ..Status::default()
    };
    let asleep = Status::default();
    let seen = bed
        .store
        .put_status(&ada, &asleep, &died_before, Timestamp::now());
    assert!(seen.await.unwrap());
    let set = bed.store.set_desired_state(&ada, DesiredState::Running);
    assert!(set.await.unwrap());
    let waits = |status: &Status| status.pod.is_none() && status.retry_time.is_some();

    let awake = bed.until(&ada, is(LearnerState::Ready)).await;
    kill(&awake).await;
    let waiting = bed.until(&ada, waits).await;
    let mut changed = ClassSpec::default();
    changed.turn.max_queued += 1;
    bed.class("plain", &changed).await;
    let again = bed.until(&ada, is(LearnerState::Ready)).await;
    assert!(again.since < waiting.retry_time, "{again:?} {waiting:?}");

    // Tried anew, it has as many tries again: here they have been used up.
    let died_before = Status {
        young_deaths: MOST_UNASKED - 1,
        ..again.clone()
    };
    let seen = bed
        .store
        .put_status(&ada, &again, &died_before, Timestamp::now());
    assert!(seen.await.unwrap());
    kill(&again).await;
    let waiting = bed.until(&ada, waits).await;
    bed.class("other", &changed).await;
    let other = "other".parse().unwrap();
    let moved = bed.store.change_learner(&ada, Some(&other), None).await;
    assert_eq!(moved.unwrap(), Some(Created::Same));
    let again = bed.until(&ada, is(LearnerState::Ready)).await;
    assert!(again.since < waiting.retry_time, "{again:?} {waiting:?}");
    Outcome::Passed
}
