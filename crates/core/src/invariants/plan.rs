//! What must hold of every single plan, whatever is seen: the part of invariants 1, 2, 5 and 7 that the lifecycle carries.

use strum::IntoEnumIterator;

use crate::learner::{Desired, LearnerState};
use crate::lifecycle::{
    Effect, Ending, KillReason, Observed, Phase, Plan, PodSeen, Wish, Write, names, wish,
};

/// A property of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumIter)]
pub enum PlanRule {
    /// 1: only a pod and epoch that are stored already are assigned, to a pod that is blank.
    AssignsWhatIsStored,
    /// 1: a status's epoch names one pod for ever: another pod comes with a higher epoch.
    OnePodAnEpoch,
    /// 2: the epoch never falls, and a new one is above the fence.
    EpochsRise,
    /// 5: the incarnation's pod is removed only when it has ended; it is ended only past a deadline, which is said, or when
    /// nothing is in it or it is to be erased.
    RemovesOnlyTheSaved,
    /// 7: nothing is done, written or timed for a learner that sleeps, is not wanted awake and has no pod.
    RestIsSilent,
    /// Whatever does not rest is looked at again.
    LooksAgain,
    /// What a restarted fleet must know is stored before anything is done.
    StoresFactsFirst,
}

impl PlanRule {
    /// The first rule that the plan breaks.
    pub fn broken(desired: &Desired, observed: &Observed, plan: &Plan) -> Option<Self> {
        Self::iter().find(|rule| !rule.holds(desired, observed, plan))
    }

    /// Whether the plan keeps it.
    pub fn holds(self, desired: &Desired, observed: &Observed, plan: &Plan) -> bool {
        match self {
            Self::AssignsWhatIsStored => assigns_what_is_stored(observed, plan),
            Self::OnePodAnEpoch => one_pod_an_epoch(observed, plan),
            Self::EpochsRise => epochs_rise(observed, plan),
            Self::RemovesOnlyTheSaved => removes_only_the_saved(observed, plan),
            Self::RestIsSilent => rest_is_silent(desired, observed, plan),
            Self::LooksAgain => looks_again(plan),
            Self::StoresFactsFirst => stores_facts_first(observed, plan),
        }
    }
}

fn assigns_what_is_stored(observed: &Observed, plan: &Plan) -> bool {
    plan.effects.iter().all(|effect| match effect {
        Effect::Assign { epoch, pod } => {
            observed.status.epoch == *epoch
                && observed.status.pod.as_ref() == Some(pod)
                && matches!(&observed.pod, PodSeen::Blank { pod: seen, .. } if seen.uid == pod.uid)
        }
        Effect::CreatePod { .. }
        | Effect::AskToSleep { .. }
        | Effect::KillPod { .. }
        | Effect::LetGo { .. }
        | Effect::DeletePod { .. }
        | Effect::FinishErase => true,
    })
}

fn one_pod_an_epoch(observed: &Observed, plan: &Plan) -> bool {
    let creates = |effect: &Effect| matches!(effect, Effect::CreatePod { .. });
    let named = plan.status.pod.is_none()
        || plan.status.pod == observed.status.pod
        || plan.status.epoch > observed.status.epoch;
    let second = plan.effects.iter().any(creates)
        && (plan.status.pod.is_some() || observed.pod.uid().is_some());
    named && !second
}

fn epochs_rise(observed: &Observed, plan: &Plan) -> bool {
    let before = observed.status.epoch;
    plan.status.epoch == before
        || (plan.status.epoch > before && plan.status.epoch > observed.fence)
}

fn removes_only_the_saved(observed: &Observed, plan: &Plan) -> bool {
    let named = observed.status.pod.as_ref().map(|pod| pod.uid);
    let said = plan
        .news
        .iter()
        .any(|news| news.name == names::DATA_AT_RISK && news.holds);
    plan.effects.iter().all(|effect| match effect {
        Effect::DeletePod { pod } if Some(*pod) == named => match &observed.pod {
            PodSeen::Exited { ending, .. } => match ending {
                Ending::Slept | Ending::Discarded => true,
                Ending::Died => said || has_nothing_to_save(observed),
            },
            PodSeen::None
            | PodSeen::Starting { .. }
            | PodSeen::Unborn { .. }
            | PodSeen::Blank { .. }
            | PodSeen::Refused { .. }
            | PodSeen::Assigned { .. } => false,
        },
        Effect::LetGo { pod } if Some(*pod) == named => {
            matches!(
                observed.pod,
                PodSeen::Refused { .. } | PodSeen::Unborn { .. }
            )
        }
        Effect::KillPod { pod, reason } if Some(*pod) == named => {
            said || *reason == KillReason::Erased || has_nothing_to_save(observed)
        }
        Effect::DeletePod { pod } => {
            matches!(observed.pod, PodSeen::Exited { pod: seen, .. } if seen == *pod)
        }
        Effect::LetGo { pod } | Effect::KillPod { pod, .. } => {
            named.is_none() && observed.pod.uid() == Some(*pod)
        }
        Effect::CreatePod { .. }
        | Effect::Assign { .. }
        | Effect::AskToSleep { .. }
        | Effect::FinishErase => true,
    })
}

fn has_nothing_to_save(observed: &Observed) -> bool {
    let is_before_ready = match &observed.pod {
        PodSeen::Blank { .. } => true,
        PodSeen::Assigned { phase, .. } => *phase == Phase::Restoring,
        PodSeen::None
        | PodSeen::Starting { .. }
        | PodSeen::Unborn { .. }
        | PodSeen::Refused { .. }
        | PodSeen::Exited { .. } => false,
    };
    is_before_ready || !names::was_ready(observed.status.state)
}

fn rest_is_silent(desired: &Desired, observed: &Observed, plan: &Plan) -> bool {
    let rests = observed.status.state == LearnerState::Asleep
        && observed.status.pod.is_none()
        && observed.pod == PodSeen::None
        && wish(desired, &observed.status) == Wish::Asleep;
    !rests
        || (plan.effects.is_empty()
            && plan.write == Write::Nothing
            && plan.requeue_at.is_none()
            && plan.status == observed.status)
}

fn looks_again(plan: &Plan) -> bool {
    let at_rest = plan.status.state == LearnerState::Asleep
        && plan.status.pod.is_none()
        && plan.effects.is_empty();
    at_rest || plan.requeue_at.is_some()
}

fn stores_facts_first(observed: &Observed, plan: &Plan) -> bool {
    let (stored, next) = (&observed.status, &plan.status);
    let facts_differ = stored.epoch != next.epoch
        || stored.pod != next.pod
        || stored.young_deaths != next.young_deaths
        || stored.retry_time != next.retry_time
        || (names::was_ready(next.state) && !names::was_ready(stored.state))
        || (stored.state == LearnerState::Failed) != (next.state == LearnerState::Failed);
    match plan.write {
        Write::Nothing => stored == next,
        Write::May => !facts_differ,
        Write::Must => true,
    }
}
