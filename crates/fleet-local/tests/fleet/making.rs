//! Pods that cannot be made, or not soon.

use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::class::ClassSpec;
use carrel_core::learner::{DesiredState, LearnerState, Status};
use carrel_core::lifecycle::{MOST_UNASKED, gave_up};
use carrel_fleet_local::{Budget, WantedIsolation};
use carrel_protocol::fleet::Fleet as _;
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::bed::{Bed, PLENTY, is};

crate::tests![
    a_learner_whose_class_is_missing_is_given_up_and_tried_anew_when_asked,
    one_that_is_kept_awake_spends_no_epoch_in_vain_and_is_tried_at_once_when_its_class_comes,
    a_class_with_an_image_is_refused_where_nothing_contains_its_command,
    a_pull_that_does_not_end_holds_up_neither_erasing_nor_a_stop_nor_another_start,
];

async fn a_learner_whose_class_is_missing_is_given_up_and_tried_anew_when_asked() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.learner("ada", "missing").await;
    bed.wake(&ada, 0).await;
    let given_up = bed.until(&ada, |status| status.epoch == Epoch(1)).await;
    assert_eq!(given_up.state, LearnerState::Asleep);
    assert!(gave_up(&given_up), "{given_up:?}");
    assert!(given_up.detail.contains("class 'missing'"), "{given_up:?}");
    assert_eq!(bed.stored(&ada).await, given_up);
    assert!(bed.store.stirring().await.unwrap().is_empty());
    bed.class("missing", &ClassSpec::default()).await;
    bed.wake(&ada, 1).await;
    let awake = bed.until(&ada, is(LearnerState::Ready)).await;
    assert_eq!(awake.epoch, Epoch(2));
    Outcome::Passed
}

async fn one_that_is_kept_awake_spends_no_epoch_in_vain_and_is_tried_at_once_when_its_class_comes()
-> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let ada = bed.learner("ada", "missing").await;
    let set = bed.store.set_desired_state(&ada, DesiredState::Running);
    assert!(set.await.unwrap());
    let waits = |status: &Status| status.young_deaths == MOST_UNASKED;
    let waiting = bed.until(&ada, waits).await;
    assert_eq!(
        (waiting.epoch, waiting.state),
        (Epoch(0), LearnerState::Failed)
    );
    bed.class("missing", &ClassSpec::default()).await;
    let awake = bed.until(&ada, is(LearnerState::Ready)).await;
    assert_eq!(awake.epoch, Epoch(1));
    assert!(awake.since < waiting.retry_time, "{awake:?} {waiting:?}");
    Outcome::Passed
}

async fn a_class_with_an_image_is_refused_where_nothing_contains_its_command() -> Outcome {
    let bed = Bed::plain(PLENTY).await;
    let mut spec = ClassSpec::default();
    "127.0.0.1:9/school:one".clone_into(&mut spec.agent.image);
    spec.agent.command = vec!["/bin/true".to_owned()];
    bed.class("imaged", &spec).await;
    let ada = bed.learner("ada", "imaged").await;
    bed.wake(&ada, 0).await;
    let given_up = bed.until(&ada, gave_up).await;
    assert_eq!(given_up.state, LearnerState::Asleep);
    assert!(
        given_up.detail.contains("an image needs containers"),
        "{given_up:?}"
    );
    Outcome::Passed
}

/// Sooner than a pull ends by itself whose registry says nothing.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Reads until the other side has closed it.
async fn closed(mut connection: TcpStream) {
    let mut bytes = [0; 1024];
    let end = async { while connection.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(AT_ONCE, end).await.unwrap();
}

async fn a_pull_that_does_not_end_holds_up_neither_erasing_nor_a_stop_nor_another_start() -> Outcome
{
    let registry = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one_at_a_time = Budget {
        starting: 1,
        live: 1,
        ..PLENTY
    };
    let bed = Bed::new(WantedIsolation::Auto, one_at_a_time).await;
    if bed.fleet.report().isolation != "oci" {
        let required = std::env::var_os("CARREL_REQUIRE")
            .is_some_and(|list| list.to_string_lossy().split(',').any(|word| word == "oci"));
        assert!(!required, "no containers here: {:?}", bed.fleet.report());
        return Outcome::Skipped("no containers can be started here");
    }
    let mut spec = ClassSpec::default();
    spec.agent.image = format!("{}/school:one", registry.local_addr().unwrap());
    bed.class("imaged", &spec).await;
    let ada = bed.learner("ada", "imaged").await;
    let bob = bed.learner("bob", "imaged").await;

    bed.wake(&ada, 0).await;
    let (pull, _) = registry.accept().await.unwrap();
    let cy = bed.ordinary("cy").await;
    tokio::time::timeout(AT_ONCE, bed.awake(&cy)).await.unwrap();
    let erased = async {
        bed.store
            .close_learner(&ada, Timestamp::now())
            .await
            .unwrap();
        bed.fleet.discard(&ada).await.unwrap();
    };
    tokio::time::timeout(AT_ONCE, erased).await.unwrap();
    closed(pull).await;

    bed.wake(&bob, 0).await;
    let (pull, _) = registry.accept().await.unwrap();
    bed.store
        .erase_learner(&ada, Timestamp::now())
        .await
        .unwrap();
    let drained = bed.fleet.drain(Duration::from_mins(10));
    tokio::time::timeout(AT_ONCE, drained).await.unwrap();
    closed(pull).await;
    Outcome::Passed
}
