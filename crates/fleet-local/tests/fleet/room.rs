//! The live cap: those who wait get the places of those who were quiet longest.

use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::learner::LearnerState;
use carrel_fleet_local::Budget;
use carrel_protocol::sidecar::Phase;
use jiff::Timestamp;

use crate::Outcome;
use crate::bed::{Bed, is, tell};
use crate::stand_in::Told;

crate::tests![two_who_wait_at_the_live_cap_get_the_places_of_the_two_that_were_quiet_longest];

async fn two_who_wait_at_the_live_cap_get_the_places_of_the_two_that_were_quiet_longest() -> Outcome
{
    let cap = Budget {
        live: 4,
        starting: 4,
        per_second: 1000,
    };
    let bed = Bed::plain(cap).await;
    let quiet = |seconds| Told {
        phase: Phase::Ready,
        quiet_since: Some(Timestamp::now() - Duration::from_secs(seconds)),
    };
    let busy = Told {
        phase: Phase::Busy,
        quiet_since: None,
    };
    let mut awake = Vec::new();
    for (id, told) in [
        ("a-while", quiet(100)),
        ("longest", quiet(300)),
        ("busy", busy),
        ("long", quiet(200)),
    ] {
        let learner = bed.ordinary(id).await;
        let status = bed.awake(&learner).await;
        tell(&status, told).await;
        awake.push(learner);
    }
    bed.until(&awake[2], is(LearnerState::Busy)).await;
    let waiting = [bed.ordinary("first").await, bed.ordinary("second").await];
    for learner in &waiting {
        bed.wake(learner, 0).await;
    }
    for learner in &waiting {
        bed.until(learner, is(LearnerState::Ready)).await;
    }
    for (learner, state) in awake.iter().zip([
        LearnerState::Ready,
        LearnerState::Asleep,
        LearnerState::Busy,
        LearnerState::Asleep,
    ]) {
        let status = bed.until(learner, is(state)).await;
        assert_eq!(status.epoch, Epoch(1), "{learner}");
    }
    Outcome::Passed
}
