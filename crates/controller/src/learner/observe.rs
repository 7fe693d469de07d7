//! What is seen of a learner's pod, as the plan knows it: a pure function of the pod's record, of what its sidecar said, and of the time.

use carrel_core::LearnerId;
use carrel_core::learner::{PodRef, StartKind, Status};
use carrel_core::lifecycle::{Ending, Phase, PodSeen};
use carrel_protocol::sidecar::{Farewell, Hello, Phase as Said};
use jiff::Timestamp;

use super::stir::{Answered, Choice, Heard, Stir};
use crate::names;
use crate::world::pod::{Life, SeenPod};

/// Why a pod that was chosen became nobody's.
pub(super) const DELETED: &str = "its pod was deleted before it was ready";

/// The pod that the status names.
pub(super) fn named(
    id: &LearnerId,
    status: &Status,
    named: &PodRef,
    pod: Option<&SeenPod>,
    stir: &Stir,
    now: Timestamp,
) -> PodSeen {
    let Some(pod) = pod else {
        return PodSeen::None;
    };
    let heard = stir.heard_of(pod.uid);
    let taken = stir
        .taken
        .filter(|(taken, _)| *taken == pod.uid)
        .map(|(_, at)| at);
    let found = stir
        .found
        .filter(|(found, _)| *found == pod.uid)
        .map(|(_, at)| at);
    let exited = |ending, committed, reason: String| PodSeen::Exited {
        pod: pod.uid,
        ending,
        committed,
        reason,
    };
    let committed = heard
        .and_then(|heard| heard.hello.as_ref())
        .is_some_and(|hello| hello.committed);
    let lost = || {
        exited(
            Ending::Died,
            committed,
            "its node does not answer".to_owned(),
        )
    };
    match &pod.life {
        Life::Ended {
            farewell: Some(farewell),
            reason,
        } => exited(farewell.ending, farewell.committed, told(farewell, reason)),
        Life::Ended {
            farewell: None,
            reason,
        } => exited(Ending::Died, committed, reason.clone()),
        _ if pod.gone => exited(Ending::Died, committed, "its pod is gone".to_owned()),
        _ if stir.refused == Some(pod.uid) => PodSeen::Refused { pod: pod.uid },
        Life::Leaving { until } if now > *until + names::NODE_GONE => lost(),
        Life::Leaving { .. } => leaving(pod, heard, status, now),
        Life::Starting | Life::Running => match heard {
            Some(Heard {
                silent_since: Some(since),
                ..
            }) => {
                let waited = now.duration_since(*since).unsigned_abs();
                if !pod.ready && waited > names::SILENT_AND_LOST {
                    lost()
                } else {
                    PodSeen::Starting {
                        pod: pod.uid,
                        since: *since,
                        detail: String::new(),
                    }
                }
            }
            Some(Heard {
                hello: Some(hello),
                since,
                ..
            }) if is_ours(hello, id, status) => assigned(pod, hello, *since),
            Some(_) | None if was_ready(status) => PodSeen::Assigned {
                pod: pod.uid,
                phase: Phase::Ready,
                since: status.since.unwrap_or(now),
                committed,
                fell_back: false,
                detail: String::new(),
            },
            Some(_) | None if taken.is_some() => PodSeen::Assigned {
                pod: pod.uid,
                phase: Phase::Restoring,
                since: taken.unwrap_or(now),
                committed,
                fell_back: false,
                detail: String::new(),
            },
            // An earlier leader named it, and may have told it: it is asked before it is told (again), however long that was ago.
            None if found.is_some() => PodSeen::Starting {
                pod: pod.uid,
                since: found.unwrap_or(now),
                detail: String::new(),
            },
            Some(_) | None => PodSeen::Blank {
                pod: named.clone(),
                start_kind: status.start_kind.unwrap_or(StartKind::Cold),
            },
        },
    }
}

/// The pod that was chosen for a learner whose status names none.
pub(super) fn chosen(
    choice: Choice,
    pod: &SeenPod,
    stir: &Stir,
    port: u16,
    now: Timestamp,
) -> PodSeen {
    if stir.refused == Some(pod.uid) {
        return PodSeen::Refused { pod: pod.uid };
    }
    let blank = |address| PodSeen::Blank {
        pod: PodRef {
            name: format!("{}/{}", pod.namespace, pod.name),
            uid: pod.uid,
            address,
        },
        start_kind: choice.start_kind,
    };
    let starting = |detail: &str| PodSeen::Starting {
        pod: pod.uid,
        since: pod.created,
        detail: detail.to_owned(),
    };
    match (&pod.life, pod.url(port)) {
        (Life::Running, Some(address)) => blank(address),
        (Life::Starting, Some(address)) => match stir.answer_of(pod.uid) {
            Some(Answered::Ready) => blank(address),
            Some(Answered::NotYet(why)) => starting(why),
            None => starting(&pod.waits),
        },
        (Life::Starting | Life::Running, None) => starting(&pod.waits),
        (Life::Leaving { .. }, _) => PodSeen::Unborn {
            pod: Some(pod.uid),
            time: now,
            reason: DELETED.to_owned(),
        },
        (Life::Ended { farewell, reason }, _) => PodSeen::Unborn {
            pod: Some(pod.uid),
            time: now,
            reason: farewell
                .as_ref()
                .map_or_else(|| reason.clone(), |last| told(last, reason)),
        },
    }
}

fn leaving(pod: &SeenPod, heard: Option<&Heard>, status: &Status, now: Timestamp) -> PodSeen {
    let hello = heard.and_then(|heard| heard.hello.as_ref());
    PodSeen::Assigned {
        pod: pod.uid,
        phase: match hello.map(|hello| hello.phase) {
            Some(Said::Snapshotting) => Phase::Snapshotting,
            // One that was never ready is wanted still when it has ended.
            Some(Said::Blank | Said::Restoring) | None if !was_ready(status) => Phase::Restoring,
            Some(_) | None => Phase::Draining,
        },
        since: heard
            .map(|heard| heard.since)
            .or(status.since)
            .unwrap_or(now),
        committed: hello.is_some_and(|hello| hello.committed),
        fell_back: hello.is_some_and(|hello| hello.fell_back),
        detail: "its pod is being ended".to_owned(),
    }
}

fn assigned(pod: &SeenPod, hello: &Hello, since: Timestamp) -> PodSeen {
    PodSeen::Assigned {
        pod: pod.uid,
        phase: hello.phase.into(),
        since,
        committed: hello.committed,
        fell_back: hello.fell_back,
        detail: hello.detail.clone(),
    }
}

fn is_ours(hello: &Hello, id: &LearnerId, status: &Status) -> bool {
    hello.learner.as_ref() == Some(id) && hello.epoch == Some(status.epoch)
}

/// An earlier leader saw it ready, which is stored.
fn was_ready(status: &Status) -> bool {
    use carrel_core::learner::LearnerState as State;
    match status.state {
        State::Ready | State::Busy | State::Draining | State::Snapshotting => true,
        State::Asleep | State::Waking | State::Restoring | State::Failed | State::Deleting => false,
    }
}

fn told(farewell: &Farewell, kubelet: &str) -> String {
    match (farewell.ending, farewell.reason.as_str()) {
        (Ending::Slept, "") => "it fell asleep".to_owned(),
        (_, "") => kubelet.to_owned(),
        (_, reason) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
