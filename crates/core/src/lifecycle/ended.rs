//! What follows from the end of an incarnation, or of a pod that never became one.

use jiff::Timestamp;

use super::deadlines::after;
use super::names;
use super::observed::{Ending, Observed};
use super::outcome::{Plan, moved};
use super::rest::next_epoch;
use super::wish::{MOST_UNASKED, Wish, wish};
use crate::backoff;
use crate::learner::{Desired, LearnerState, Status};

/// The incarnation that the status names has ended.
pub(super) fn plan(
    desired: &Desired,
    stored: &Status,
    ending: Ending,
    committed: bool,
    reason: &str,
    now: Timestamp,
) -> Plan {
    let was_ready = names::was_ready(stored.state);
    let young_deaths = match ending {
        Ending::Slept => 0,
        Ending::Discarded | Ending::Died if committed => 0,
        Ending::Discarded if was_ready => stored.young_deaths,
        Ending::Discarded | Ending::Died => stored.young_deaths.saturating_add(1),
    };
    let state = if was_ready || ending == Ending::Slept {
        LearnerState::Asleep
    } else {
        LearnerState::Failed
    };
    let ended = Status {
        pod: None,
        start_kind: None,
        ..waiting(stored, state, young_deaths, reason, now)
    };
    let (state, again) = match wish(desired, &ended) {
        Wish::Awake => (ended.state, Some(ended.retry_time.unwrap_or(now))),
        Wish::Asleep => (LearnerState::Asleep, None),
        Wish::Erased => (LearnerState::Deleting, Some(now)),
    };
    let plan = Plan {
        requeue_at: again,
        ..Plan::to(stored, moved(&ended, state, reason, now))
    };
    let plan = plan.says(names::ASSIGNED, false, names::NO_POD);
    match ending {
        Ending::Slept => plan.says(names::SNAPSHOTTED, true, names::SAVED).says(
            names::DATA_AT_RISK,
            false,
            names::SAVED,
        ),
        Ending::Discarded => plan.says(names::SNAPSHOTTED, false, names::DISCARDED),
        Ending::Died if was_ready => plan
            .says(names::SNAPSHOTTED, false, names::DIED_UNSAVED)
            .says(names::DATA_AT_RISK, true, names::DIED_UNSAVED),
        Ending::Died => plan,
    }
}

/// A pod could not be made for a learner that waits for one. After so many in a row an epoch is spent that no pod gets: it
/// ends the wish that asked for it, and who waits for it sees its end. Whoever asks then gets as many tries again.
pub(super) fn unborn(desired: &Desired, observed: &Observed, reason: &str, now: Timestamp) -> Plan {
    let stored = &observed.status;
    let deaths = stored.young_deaths.saturating_add(1);
    let failed = Status {
        since: Some(now),
        ..waiting(stored, LearnerState::Failed, deaths, reason, now)
    };
    let again = failed.retry_time.unwrap_or(now);
    if deaths < MOST_UNASKED {
        return Plan::to(stored, failed).again_at(again).says(
            names::ASSIGNED,
            false,
            names::NO_POD,
        );
    }
    let given_up = Status {
        epoch: next_epoch(observed),
        ..failed
    };
    let plan = match wish(desired, &given_up) {
        Wish::Awake => Plan::to(stored, given_up).again_at(again),
        Wish::Asleep | Wish::Erased => {
            let asleep = Status {
                state: LearnerState::Asleep,
                young_deaths: 0,
                retry_time: None,
                ..given_up
            };
            Plan::to(stored, asleep)
        }
    };
    plan.says(names::ASSIGNED, false, names::GIVEN_UP)
}

fn waiting(
    stored: &Status,
    state: LearnerState,
    young_deaths: u32,
    reason: &str,
    now: Timestamp,
) -> Status {
    let delay = backoff::delay(young_deaths);
    Status {
        young_deaths,
        retry_time: (!delay.is_zero()).then(|| after(now, delay)),
        ..moved(stored, state, reason, now)
    }
}
