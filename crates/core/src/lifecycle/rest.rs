//! The plan of a learner whose status names no pod: it sleeps, waits for a place, or gets a pod and the next epoch.

use jiff::Timestamp;

use super::deadlines::{Policy, after};
use super::ended;
use super::names;
use super::observed::{Observed, PodSeen};
use super::outcome::{Effect, KillReason, Plan, moved};
use super::wish::{MOST_UNASKED, Wish, is_asked, is_kept_awake_in_vain, wish};
use crate::backoff;
use crate::id::{Epoch, PodUid};
use crate::learner::{Desired, DesiredState, LearnerState, PodRef, StartKind, Status};

pub(super) fn plan(
    desired: &Desired,
    observed: &Observed,
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    let stored = &observed.status;
    let wish = wish(desired, stored);
    let retry = after(now, policy.retry);
    let remove = |effect| stay(stored, wish, now).again_at(retry).with(effect);
    match (&observed.pod, wish) {
        (PodSeen::None | PodSeen::Unborn { pod: None, .. }, Wish::Asleep) => {
            stay(stored, wish, now)
        }
        (PodSeen::None | PodSeen::Unborn { pod: None, .. }, Wish::Erased) => {
            remove(Effect::FinishErase)
        }
        (PodSeen::None, Wish::Awake) => ask_for_pod(desired, observed, policy, now),
        (PodSeen::Starting { pod, since, detail }, Wish::Awake) => {
            let deadline = after(*since, policy.start);
            if now < deadline {
                let detail = because("its container starts", detail);
                waking(stored, &detail, now).again_at(deadline)
            } else {
                let reason = because("its container did not start in time", detail);
                unborn(
                    desired,
                    observed,
                    Some(*pod),
                    deadline,
                    &reason,
                    policy,
                    now,
                )
            }
        }
        (PodSeen::Unborn { pod, time, reason }, Wish::Awake) => {
            unborn(desired, observed, *pod, *time, reason, policy, now)
        }
        (PodSeen::Blank { pod, start_kind }, Wish::Awake) => {
            must_wait(desired, observed, policy, now)
                .unwrap_or_else(|| raise(observed, pod, *start_kind, policy, now))
        }
        (
            PodSeen::Starting { pod, .. }
            | PodSeen::Unborn { pod: Some(pod), .. }
            | PodSeen::Refused { pod },
            _,
        ) => remove(Effect::LetGo { pod: *pod }),
        (PodSeen::Blank { pod, .. }, Wish::Asleep | Wish::Erased) => {
            remove(Effect::LetGo { pod: pod.uid })
        }
        (PodSeen::Assigned { pod, .. }, _) => remove(Effect::KillPod {
            pod: *pod,
            reason: KillReason::Unnamed,
        }),
        (PodSeen::Exited { pod, .. }, _) => remove(Effect::DeletePod { pod: *pod }),
    }
}

/// The epoch that the learner's next incarnation gets: above the last and not below what the store has seen.
pub fn next_epoch(observed: &Observed) -> Epoch {
    observed.status.epoch.max(observed.fence).next()
}

/// Whether the newest epoch was given up because no pod could be made for it; the status's detail says why.
pub fn gave_up(status: &Status) -> bool {
    let assigned = status.condition(names::ASSIGNED);
    status.pod.is_none() && assigned.is_some_and(|condition| condition.reason == names::GIVEN_UP)
}

/// Whether no pod was made so often that the next failure is the last: it may have been seen already, so what is asked for
/// now may be given up without a try of its own. Not in a long wait: no try is under way, and asking ends it with a whole row.
pub fn is_last_try(status: &Status, now: Timestamp) -> bool {
    let waits_long = status.retry_time > Some(after(now, backoff::MAX_DELAY));
    status.pod.is_none() && status.young_deaths.saturating_add(1) >= MOST_UNASKED && !waits_long
}

/// The status as people are shown it: one that rests says nothing of why it stays asleep, which its document may want.
pub fn shown(desired: &Desired, status: Status) -> Status {
    let kept = desired.state == DesiredState::Asleep && !desired.deleting;
    if kept && status.state == LearnerState::Asleep {
        let detail = names::KEPT_ASLEEP.to_owned();
        Status { detail, ..status }
    } else {
        status
    }
}

/// The status as it is stored: that one works is not, whoever runs its turn knows. Stored when somebody is seen at work first, it
/// would stay when they rest again, which is shown alone.
pub fn kept(status: &Status) -> Status {
    let state = match status.state {
        LearnerState::Busy => LearnerState::Ready,
        state => state,
    };
    Status {
        state,
        ..status.clone()
    }
}

/// No incarnation, and nothing is done towards one.
fn stay(stored: &Status, wish: Wish, now: Timestamp) -> Plan {
    let status = match wish {
        Wish::Asleep if stored.state != LearnerState::Asleep => {
            moved(stored, LearnerState::Asleep, "", now)
        }
        Wish::Asleep | Wish::Awake => stored.clone(),
        Wish::Erased => moved(stored, LearnerState::Deleting, "it is being erased", now),
    };
    Plan::to(stored, status)
}

/// On the way to a pod. What has failed is called so until the next incarnation is named: the wish is known by it.
fn waking(stored: &Status, detail: &str, now: Timestamp) -> Plan {
    let state = match stored.state {
        LearnerState::Failed => LearnerState::Failed,
        LearnerState::Asleep
        | LearnerState::Waking
        | LearnerState::Restoring
        | LearnerState::Ready
        | LearnerState::Busy
        | LearnerState::Draining
        | LearnerState::Snapshotting
        | LearnerState::Deleting => LearnerState::Waking,
    };
    Plan::to(stored, moved(stored, state, detail, now))
}

fn because(what: &str, why: &str) -> String {
    match why {
        "" => what.to_owned(),
        why => format!("{what}: {why}"),
    }
}

fn must_wait(
    desired: &Desired,
    observed: &Observed,
    policy: &Policy,
    now: Timestamp,
) -> Option<Plan> {
    let stored = &observed.status;
    match stored.retry_time {
        Some(_) if is_tried_anew(desired, observed, now) => {
            let anew = Status {
                young_deaths: 0,
                retry_time: None,
                ..waking(stored, "is tried anew", now).status
            };
            Some(Plan::to(stored, anew).again_at(now))
        }
        Some(retry) if now < retry => {
            let detail = if stored.state == LearnerState::Failed {
                &stored.detail
            } else {
                "is tried again in a moment"
            };
            Some(waking(stored, detail, now).again_at(retry))
        }
        Some(_) | None if observed.admitted => None,
        Some(_) | None => {
            let again = after(now, policy.admission);
            let detail = because("waits for a place", &observed.wanting);
            Some(waking(stored, &detail, now).again_at(again))
        }
    }
}

/// Whether a long wait ends with a row of tries like the first, and at once: somebody asks, or what it was tried with has
/// changed. The short ones are over in seconds, and keep who asks again and again from starting what dies at once.
fn is_tried_anew(desired: &Desired, observed: &Observed, now: Timestamp) -> bool {
    let stored = &observed.status;
    // It may have been kept awake when it began to wait.
    let waits_long = is_kept_awake_in_vain(desired, stored.young_deaths)
        || stored.retry_time > Some(after(now, backoff::MAX_DELAY));
    waits_long && (observed.renewed || is_asked(desired, stored))
}

fn ask_for_pod(desired: &Desired, observed: &Observed, policy: &Policy, now: Timestamp) -> Plan {
    must_wait(desired, observed, policy, now).unwrap_or_else(|| {
        waking(&observed.status, "gets a container", now)
            .again_at(after(now, policy.retry))
            .with(Effect::CreatePod {
                epoch: next_epoch(observed),
            })
    })
}

/// Names the pod and its epoch. Nothing is sent to it before this is stored.
fn raise(
    observed: &Observed,
    pod: &PodRef,
    start_kind: StartKind,
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    let status = Status {
        epoch: next_epoch(observed),
        pod: Some(pod.clone()),
        start_kind: Some(start_kind),
        since: Some(now),
        retry_time: None,
        ..moved(
            &observed.status,
            LearnerState::Waking,
            "its container is told whose it is",
            now,
        )
    };
    Plan::to(&observed.status, status)
        .again_at(after(now, policy.assign))
        .says(names::ASSIGNED, false, names::SENT)
}

/// A pod failed before it was an incarnation. Counted once: what was counted, failed or was given up after it was seen.
fn unborn(
    desired: &Desired,
    observed: &Observed,
    pod: Option<PodUid>,
    time: Timestamp,
    reason: &str,
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    let stored = &observed.status;
    let seen = time.min(now);
    let was_counted = matches!(stored.state, LearnerState::Failed | LearnerState::Asleep);
    let counted = was_counted && stored.since.is_some_and(|since| since >= seen);
    let plan = match (counted, pod) {
        (false, _) => ended::unborn(desired, observed, reason, now),
        (true, Some(_)) => stay(stored, Wish::Awake, now),
        (true, None) => ask_for_pod(desired, observed, policy, now),
    };
    match pod {
        Some(pod) => plan
            .again_at(after(now, policy.retry))
            .with(Effect::LetGo { pod }),
        None => plan,
    }
}
