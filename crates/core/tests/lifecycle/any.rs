//! Any wish and any observation, sensible or not; few enough values that they often meet.

use carrel_core::learner::{
    Condition, Desired, DesiredState, LearnerState, PodRef, StartKind, Status,
};
use carrel_core::lifecycle::{Ending, Observed, Phase, PodSeen, names};
use carrel_core::{Epoch, PodUid};
use jiff::Timestamp;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use strum::IntoEnumIterator;
use uuid::Uuid;

pub(crate) fn pod(number: u64) -> PodRef {
    PodRef {
        name: format!("w-{number}"),
        uid: PodUid(Uuid::from_u128(u128::from(number))),
        address: format!("unix:/run/{number}"),
    }
}

pub(crate) fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a second near NOW is a time")
}

/// A time about which everything else happens.
pub(crate) const NOW: i64 = 1_000_000;

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(second(NOW)),
        (NOW - 20..NOW + 20).prop_map(second),
        (NOW - 100_000..NOW + 1_000).prop_map(second),
    ]
}

fn uid() -> impl Strategy<Value = PodUid> {
    (1u64..4).prop_map(|number| pod(number).uid)
}

fn every<T: IntoEnumIterator + Clone + std::fmt::Debug + 'static>() -> impl Strategy<Value = T> {
    select(T::iter().collect::<Vec<_>>())
}

pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let states = [
        DesiredState::Auto,
        DesiredState::Running,
        DesiredState::Asleep,
    ];
    (
        select(states.to_vec()),
        option::of((0u64..6).prop_map(Epoch)),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(state, wake_after_epoch, deleting)| Desired {
            state,
            wake_after_epoch,
            deleting,
        })
}

prop_compose! {
    fn condition()(
        name in select(names::CONDITIONS.to_vec()),
        reason in select(vec![names::GIVEN_UP, names::NO_POD, names::SAVED]),
        holds in any::<bool>(),
        last_transition_time in time(),
    ) -> Condition {
        Condition {
            name: name.to_owned(),
            status: holds.into(),
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_time,
        }
    }
}

prop_compose! {
    fn status()(
        epoch in 0u64..6,
        state in every::<LearnerState>(),
        since in option::of(time()),
        detail in select(vec!["", "its turn ran long"]),
        pod in option::of((1u64..4).prop_map(pod)),
        start_kind in option::of(every::<StartKind>()),
        young_deaths in 0u32..12,
        retry_time in option::of(time()),
        conditions in option::of(condition()),
    ) -> Status {
        Status {
            epoch: Epoch(epoch),
            state,
            since,
            detail: detail.to_owned(),
            pod,
            start_kind,
            young_deaths,
            retry_time,
            conditions: conditions.into_iter().collect(),
        }
    }
}

fn seen() -> impl Strategy<Value = PodSeen> {
    prop_oneof![
        2 => Just(PodSeen::None),
        1 => (uid(), time()).prop_map(|(pod, since)| PodSeen::Starting {
            pod,
            since,
            detail: "no node takes it".to_owned(),
        }),
        1 => (option::of(uid()), time()).prop_map(|(pod, time)| PodSeen::Unborn {
            pod,
            time,
            reason: "no such image".to_owned(),
        }),
        1 => (1u64..4, every::<StartKind>())
            .prop_map(|(number, start_kind)| PodSeen::Blank { pod: pod(number), start_kind }),
        1 => uid().prop_map(|pod| PodSeen::Refused { pod }),
        4 => (uid(), every::<Phase>(), time(), any::<bool>(), any::<bool>()).prop_map(
            |(pod, phase, since, committed, fell_back)| PodSeen::Assigned {
                pod,
                phase,
                since,
                committed,
                fell_back,
                detail: "fetching its notes".to_owned(),
            }
        ),
        2 => (uid(), every::<Ending>(), any::<bool>()).prop_map(|(pod, ending, committed)| {
            PodSeen::Exited { pod, ending, committed, reason: "signal 9".to_owned() }
        }),
    ]
}

prop_compose! {
    pub(crate) fn observed()(
        status in status(),
        fence in 0u64..8,
        pod in seen(),
        admitted in any::<bool>(),
        make_room in any::<bool>(),
        renewed in any::<bool>(),
    ) -> Observed {
        Observed {
            status,
            fence: Epoch(fence),
            pod,
            admitted,
            wanting: String::new(),
            make_room,
            renewed,
        }
    }
}
