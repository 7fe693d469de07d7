//! What follows from the end of an incarnation, or of a pod that never became one.

use jiff::Timestamp;

use super::deadlines::after;
use super::names;
use super::observed::{Ending, Observed};
use super::outcome::{Plan, moved};
use super::rest::{gave_up, next_epoch};
use super::wish::{MOST_UNASKED, Wish, is_asked, is_kept_awake_in_vain, wish};
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
        ..waiting(desired, stored, state, young_deaths, reason, now)
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
/// ends the wish that asked for it, and who waits for it sees its end. Whoever asks then gets as many tries again. Nobody
/// sees the end of one that only its document keeps awake: it spends no epoch.
pub(super) fn unborn(desired: &Desired, observed: &Observed, reason: &str, now: Timestamp) -> Plan {
    let stored = &observed.status;
    let deaths = stored.young_deaths.saturating_add(1);
    let is_asked = is_asked(desired, stored);
    let gives_up = deaths >= MOST_UNASKED && (is_asked || !is_kept_awake_in_vain(desired, deaths));
    let counted = Status {
        epoch: if gives_up {
            next_epoch(observed)
        } else {
            stored.epoch
        },
        ..stored.clone()
    };
    let failed = Status {
        since: Some(now),
        ..waiting(desired, &counted, LearnerState::Failed, deaths, reason, now)
    };
    let plan = match wish(desired, &failed) {
        Wish::Awake => {
            let again = failed.retry_time.unwrap_or(now);
            Plan::to(stored, failed).again_at(again)
        }
        Wish::Asleep | Wish::Erased => {
            let asleep = Status {
                state: LearnerState::Asleep,
                young_deaths: 0,
                retry_time: None,
                ..failed
            };
            Plan::to(stored, asleep)
        }
    };
    // What was given up stays so until it is tried anew.
    let given_up = gives_up || (deaths > MOST_UNASKED && gave_up(stored));
    let why = if given_up {
        names::GIVEN_UP
    } else {
        names::NO_POD
    };
    plan.says(names::ASSIGNED, false, why)
}

fn waiting(
    desired: &Desired,
    stored: &Status,
    state: LearnerState,
    young_deaths: u32,
    reason: &str,
    now: Timestamp,
) -> Status {
    let longest = if is_kept_awake_in_vain(desired, young_deaths) && !is_asked(desired, stored) {
        backoff::MAX_UNASKED_DELAY
    } else {
        backoff::MAX_DELAY
    };
    let delay = backoff::delay(young_deaths, longest);
    Status {
        young_deaths,
        retry_time: (!delay.is_zero()).then(|| after(now, delay)),
        ..moved(stored, state, reason, now)
    }
}
