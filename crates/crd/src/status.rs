//! The status of an object and that of the product, each from the other without loss.

use carrel_core::learner::{Condition as Known, PodRef, StartKind, Status};
use carrel_core::lifecycle::names;
use carrel_core::{Epoch, PodUid};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::learner::{Condition, LearnerStatus, RestoreStatus};

/// The most characters of a condition's message; the schema refuses more.
const MESSAGE: usize = 1000;

/// The status that an object shows. What makes no sense, which only a stranger can have written, is as good as absent; an epoch
/// is never.
pub fn from_status(shown: &LearnerStatus) -> Status {
    let ready = shown
        .conditions
        .iter()
        .find(|known| known.name == names::READY);
    Status {
        epoch: Epoch(u64::try_from(shown.epoch).unwrap_or_default()),
        state: ready
            .and_then(|ready| ready.reason.parse().ok())
            .unwrap_or_default(),
        since: ready.map(|ready| ready.last_transition_time.0),
        detail: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        pod: pod(shown),
        start_kind: shown
            .start_kind
            .as_deref()
            .and_then(|kind| kind.parse().ok()),
        young_deaths: u32::try_from(shown.young_deaths).unwrap_or_default(),
        retry_time: shown.retry_time.as_ref().map(|time| time.0),
        conditions: shown
            .conditions
            .iter()
            .filter(|known| known.name != names::READY && known.status != "Unknown")
            .map(known)
            .collect(),
    }
}

fn pod(shown: &LearnerStatus) -> Option<PodRef> {
    let uid: PodUid = shown.pod_uid.as_deref()?.parse().ok()?;
    let namespace = shown.pod_namespace.as_deref()?;
    let name = shown.pod_name.as_deref()?;
    Some(PodRef {
        name: format!("{namespace}/{name}"),
        uid,
        address: shown.pod_address.clone().unwrap_or_default(),
    })
}

fn known(condition: &Condition) -> Known {
    Known {
        name: condition.name.clone(),
        status: (condition.status == "True").into(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time.0,
    }
}

/// What an object's status has beside what the product knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// The node of its pod.
    pub node_name: Option<String>,
    /// When it was last seen to wake or to fall asleep.
    pub last_active: Option<Timestamp>,
    /// The snapshot that the last incarnation left.
    pub snapshot_id: Option<String>,
    /// What came of the wish for an older state.
    pub restore: Option<RestoreStatus>,
}

impl Beside {
    /// What a status has.
    pub fn of(shown: &LearnerStatus) -> Self {
        Self {
            node_name: shown.node_name.clone(),
            last_active: shown.last_active_time.as_ref().map(|time| time.0),
            snapshot_id: shown.snapshot_id.clone(),
            restore: shown.restore.clone(),
        }
    }
}

/// What an object of this generation shows of a status.
pub fn into_status(
    status: &Status,
    beside: Beside,
    generation: Option<i64>,
    now: Timestamp,
) -> LearnerStatus {
    let pod = status.pod.as_ref();
    let place = pod.and_then(|pod| pod.name.split_once('/'));
    LearnerStatus {
        epoch: i64::try_from(status.epoch.0).unwrap_or(i64::MAX),
        pod_name: place.map(|(_, name)| name.to_owned()),
        pod_namespace: place.map(|(namespace, _)| namespace.to_owned()),
        pod_uid: pod.map(|pod| pod.uid.to_string()),
        pod_address: pod.map(|pod| pod.address.clone()),
        node_name: beside.node_name.filter(|_| pod.is_some()),
        start_kind: status.start_kind.map(|kind: StartKind| kind.to_string()),
        young_deaths: i32::try_from(status.young_deaths).unwrap_or(i32::MAX),
        retry_time: status.retry_time.map(Time),
        last_active_time: beside.last_active.map(Time),
        snapshot_id: beside.snapshot_id,
        restore: beside.restore,
        observed_generation: generation,
        conditions: conditions(status, generation, now),
    }
}

/// All five, from the first visit on.
fn conditions(status: &Status, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let known = status.all_conditions(now);
    let shown = |name: &&'static str| {
        let known = known.iter().find(|known| known.name == **name);
        match known {
            Some(known) => Condition {
                name: known.name.clone(),
                status: known.status.to_string(),
                reason: known.reason.clone(),
                message: known.message.chars().take(MESSAGE).collect(),
                observed_generation: generation,
                last_transition_time: Time(known.last_transition_time),
            },
            None => Condition {
                name: (*name).to_owned(),
                status: "Unknown".to_owned(),
                reason: "NotYet".to_owned(),
                message: String::new(),
                observed_generation: generation,
                last_transition_time: Time(now),
            },
        }
    };
    names::CONDITIONS.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use carrel_core::learner::{ConditionStatus, LearnerState};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_783_591_200 + second).unwrap()
    }

    fn condition(name: &str, holds: bool, reason: &str, since: i64) -> Known {
        Known {
            name: name.to_owned(),
            status: ConditionStatus::from(holds),
            reason: reason.to_owned(),
            message: format!("{reason} it is"),
            last_transition_time: at(since),
        }
    }

    #[test]
    fn a_status_comes_back_from_an_object_as_it_was() {
        let status = Status {
            epoch: Epoch(7),
            state: LearnerState::Restoring,
            since: Some(at(1)),
            detail: "its notes are fetched".to_owned(),
            pod: Some(PodRef {
                name: "learners-2/w-abc".to_owned(),
                uid: "0c1f6a52-2b60-4f3a-9f55-7d0a3d7a1c11".parse().unwrap(),
                address: "http://10.1.2.3:7080".to_owned(),
            }),
            start_kind: Some(StartKind::Warm),
            young_deaths: 2,
            retry_time: Some(at(3)),
            conditions: vec![
                condition(names::ASSIGNED, true, names::TAKEN, 4),
                condition(names::RESTORED, false, names::IN_PROGRESS, 5),
                condition(names::SNAPSHOTTED, false, names::DIED_UNSAVED, 6),
                condition(names::DATA_AT_RISK, true, names::DIED_UNSAVED, 7),
            ],
        };
        let beside = Beside {
            node_name: Some("node-1".to_owned()),
            last_active: Some(at(8)),
            snapshot_id: Some("a".repeat(64)),
            restore: Some(RestoreStatus {
                snapshot_id: "b".repeat(64),
                message: "there is none".to_owned(),
            }),
        };
        let shown = into_status(&status, beside.clone(), Some(3), at(9));
        assert_eq!(from_status(&shown), status);
        assert_eq!(Beside::of(&shown), beside);
        assert_eq!(shown.observed_generation, Some(3));
    }

    #[test]
    fn all_conditions_are_there_from_the_first_visit_on() {
        let shown = into_status(&Status::default(), Beside::default(), None, at(0));
        let names: Vec<_> = shown.conditions.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, names::CONDITIONS);
        assert_eq!(shown.conditions[0].reason, "Asleep");
        assert_eq!(shown.conditions[1].status, "Unknown");
        let back = from_status(&shown);
        assert_eq!(back.conditions, []);
    }
}
