//! A learner, a fleet that may lose its thread anywhere, and pods that do what pods do: the plan is executed against it
//! and the invariants are judged by what really happened.

use carrel_core::Epoch;
use carrel_core::class::ClassSpec;
use carrel_core::invariants::plan::PlanRule;
use carrel_core::invariants::{Act, Facts, Invariant, RemovedPod, Rest};
use carrel_core::learner::{Desired, DesiredState, LearnerState, PodRef, StartKind, Status};
use carrel_core::lifecycle::{
    Effect, Ending, KillReason, Observed, Phase, Plan, PodSeen, Policy, Write, names,
};
use jiff::Timestamp;
use strum::IntoEnumIterator;

use crate::any;

/// The plan, or a broken one.
pub(crate) type Planner = fn(&Desired, &Observed, &Policy, Timestamp) -> Plan;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Pass {
        seconds: i64,
    },
    Wish(DesiredState),
    /// The gateway has a message.
    Wake,
    Erase,
    /// Its document or its class changes.
    Renew,
    Admit(bool),
    MakeRoom(bool),
    /// The pod does the next thing that a healthy one does.
    PodGoesOn,
    /// The sidecar finds that it is quiet.
    PodDozes,
    PodDiscards,
    PodDies,
    PodVanishes,
    /// The sidecar refuses every assignment from now on.
    PodRefuses,
    /// Plans, stores and performs all effects.
    Plan,
    /// Plans and stores, and dies before effect number `effects`.
    PlanAndDie {
        effects: usize,
    },
    /// A second fleet acts by what it saw when this step came last.
    StaleFleet,
    /// The fleet restarts and knows only what had to be stored.
    Forget,
}

#[derive(Debug, Clone)]
struct Pod {
    reference: PodRef,
    seen: PodSeen,
    made_for: Epoch,
    epoch: Option<Epoch>,
    refuses: bool,
    end: RemovedPod,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    planner: Planner,
    policy: Policy,
    pub(crate) desired: Desired,
    pub(crate) status: Status,
    durable: Status,
    fence: Epoch,
    pods: Vec<Pod>,
    pub(crate) admitted: bool,
    make_room: bool,
    renewed: bool,
    now: Timestamp,
    stale: Option<(Status, Plan)>,
    pub(crate) facts: Facts,
    broken_rule: Option<PlanRule>,
}

impl World {
    pub(crate) fn new(planner: Planner, fence: Epoch) -> Self {
        Self {
            planner,
            policy: Policy::of(&ClassSpec::default()),
            desired: Desired::default(),
            status: Status::default(),
            durable: Status::default(),
            fence,
            pods: Vec::new(),
            admitted: true,
            make_room: false,
            renewed: false,
            now: any::second(any::NOW),
            stale: None,
            facts: Facts::default(),
            broken_rule: None,
        }
    }

    /// The first rule that a plan broke.
    pub(crate) fn broken_rule(&self) -> Option<PlanRule> {
        self.broken_rule
    }

    /// How many pods were made.
    pub(crate) fn pods_made(&self) -> usize {
        self.pods.len()
    }

    /// The first invariant that is broken.
    pub(crate) fn broken_invariant(&self) -> Option<Invariant> {
        Invariant::iter().find(|invariant| !invariant.holds(&self.facts))
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Pass { seconds } => {
                self.now = any::second(self.now.as_second() + seconds);
            }
            Step::Wish(state) => self.desired.state = state,
            Step::Wake => self.desired.wake_after_epoch = Some(self.status.epoch),
            Step::Erase => self.desired.deleting = true,
            Step::Renew => self.renewed = true,
            Step::Admit(admitted) => self.admitted = admitted,
            Step::MakeRoom(make_room) => self.make_room = make_room,
            Step::PodGoesOn => self.with_current(Self::go_on),
            Step::PodDozes => self.with_current(|world, place| {
                if let PodSeen::Assigned { phase, since, .. } = &mut world.pods[place].seen
                    && *phase == Phase::Ready
                {
                    (*phase, *since) = (Phase::Snapshotting, world.now);
                }
            }),
            Step::PodDiscards => self.with_current(|world, place| {
                if let PodSeen::Assigned {
                    phase: Phase::Busy, ..
                } = world.pods[place].seen
                {
                    world.exit(place, Ending::Discarded);
                }
            }),
            Step::PodDies => self.with_current(|world, place| world.exit(place, Ending::Died)),
            Step::PodVanishes => self.with_current(|world, place| {
                world.pods[place].seen = PodSeen::None;
            }),
            Step::PodRefuses => self.with_current(|world, place| world.pods[place].refuses = true),
            Step::Plan => self.plan(usize::MAX),
            Step::PlanAndDie { effects } => self.plan(effects),
            Step::StaleFleet => {
                let observed = self.observed();
                let plan = (self.planner)(&self.desired, &observed, &self.policy, self.now);
                if let Some((expected, plan)) = self.stale.replace((observed.status, plan)) {
                    self.execute(&expected, &plan, usize::MAX);
                }
            }
            Step::Forget => self.status = self.durable.clone(),
        }
        self.facts.rest = self.rest();
    }

    fn observed(&self) -> Observed {
        Observed {
            status: self.status.clone(),
            fence: self.fence,
            pod: self
                .current()
                .map_or(PodSeen::None, |place| self.pods[place].seen.clone()),
            admitted: self.admitted,
            wanting: String::new(),
            make_room: self.make_room,
            renewed: self.renewed,
        }
    }

    fn current(&self) -> Option<usize> {
        let named = self.status.pod.as_ref().map(|pod| pod.uid);
        self.pods.iter().rposition(|pod| {
            pod.seen != PodSeen::None && named.is_none_or(|named| named == pod.reference.uid)
        })
    }

    fn with_current(&mut self, change: impl FnOnce(&mut Self, usize)) {
        if let Some(place) = self.current() {
            change(self, place);
        }
    }

    fn go_on(&mut self, place: usize) {
        let now = self.now;
        let pod = &mut self.pods[place];
        match &mut pod.seen {
            PodSeen::Starting { .. } => {
                pod.seen = PodSeen::Blank {
                    pod: pod.reference.clone(),
                    start_kind: StartKind::Cold,
                };
            }
            PodSeen::Assigned {
                phase,
                since,
                committed,
                ..
            } => {
                *committed = *committed || matches!(phase, Phase::Busy | Phase::Snapshotting);
                *since = now;
                *phase = match phase {
                    Phase::Restoring | Phase::Busy => Phase::Ready,
                    Phase::Ready => Phase::Busy,
                    Phase::Draining => Phase::Snapshotting,
                    Phase::Snapshotting => return self.exit(place, Ending::Slept),
                };
            }
            PodSeen::None
            | PodSeen::Unborn { .. }
            | PodSeen::Blank { .. }
            | PodSeen::Refused { .. }
            | PodSeen::Exited { .. } => {}
        }
    }

    fn exit(&mut self, place: usize, ending: Ending) {
        let pod = &mut self.pods[place];
        let committed = match pod.seen {
            PodSeen::Assigned { committed, .. } => committed,
            PodSeen::Starting { .. } | PodSeen::Blank { .. } if pod.epoch.is_none() => {
                pod.seen = PodSeen::Unborn {
                    pod: Some(pod.reference.uid),
                    time: self.now,
                    reason: "it ended at once".to_owned(),
                };
                return;
            }
            PodSeen::Starting { .. } | PodSeen::Blank { .. } | PodSeen::Refused { .. } => false,
            PodSeen::None | PodSeen::Unborn { .. } | PodSeen::Exited { .. } => return,
        };
        pod.seen = PodSeen::Exited {
            pod: pod.reference.uid,
            ending,
            committed,
            reason: "it ended".to_owned(),
        };
    }

    fn plan(&mut self, effects: usize) {
        let observed = self.observed();
        let plan = (self.planner)(&self.desired, &observed, &self.policy, self.now);
        let broken = PlanRule::broken(&self.desired, &observed, &plan);
        self.broken_rule = self.broken_rule.or(broken);
        self.execute(&observed.status, &plan, effects);
    }

    /// As a fleet executes: status by compare-and-set, then the effects.
    fn execute(&mut self, expected: &Status, plan: &Plan, effects: usize) {
        if self.status.epoch != expected.epoch || self.status.state != expected.state {
            return;
        }
        if plan.write != Write::Nothing {
            self.status = plan.status.clone();
            self.note_ready();
            if plan.write == Write::Must {
                self.durable = plan.status.clone();
            }
        }
        for news in &plan.news {
            let uid = expected.pod.as_ref().map(|pod| pod.uid);
            if news.name == names::DATA_AT_RISK && news.holds {
                for pod in self
                    .pods
                    .iter_mut()
                    .filter(|pod| Some(pod.reference.uid) == uid)
                {
                    pod.end.was_said_at_risk = true;
                }
            }
        }
        for effect in plan.effects.iter().take(effects) {
            self.perform(effect);
        }
    }

    /// What may be lost is judged by what the fleet could know.
    fn note_ready(&mut self) {
        let is_ready = match self.status.state {
            LearnerState::Ready
            | LearnerState::Busy
            | LearnerState::Draining
            | LearnerState::Snapshotting => true,
            LearnerState::Asleep
            | LearnerState::Waking
            | LearnerState::Restoring
            | LearnerState::Failed
            | LearnerState::Deleting => false,
        };
        let named = self.status.pod.as_ref().map(|pod| pod.uid);
        for pod in self
            .pods
            .iter_mut()
            .filter(|pod| Some(pod.reference.uid) == named)
        {
            pod.end.had_nothing_to_save &= !is_ready;
            pod.end.had_nothing_to_save |= self.status.state == LearnerState::Deleting;
        }
    }

    fn place_of(&self, uid: carrel_core::PodUid) -> Option<usize> {
        self.pods
            .iter()
            .position(|pod| pod.reference.uid == uid && pod.seen != PodSeen::None)
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::CreatePod { epoch } => {
                let made = |pod: &Pod| pod.made_for == *epoch && pod.seen != PodSeen::None;
                if self.pods.iter().any(made) {
                    return;
                }
                self.renewed = false;
                let pod = any::pod(self.pods.len() as u64 + 1);
                self.pods.push(Pod {
                    seen: PodSeen::Starting {
                        pod: pod.uid,
                        since: self.now,
                        detail: String::new(),
                    },
                    reference: pod,
                    made_for: *epoch,
                    epoch: None,
                    refuses: false,
                    end: RemovedPod {
                        had_nothing_to_save: true,
                        was_saved: false,
                        was_said_at_risk: false,
                    },
                });
            }
            Effect::Assign { epoch, pod } => {
                if let Some(place) = self.place_of(pod.uid) {
                    self.assign(place, *epoch);
                }
            }
            Effect::AskToSleep { pod, .. } => {
                let now = self.now;
                if let Some(place) = self.place_of(*pod)
                    && let PodSeen::Assigned { phase, since, .. } = &mut self.pods[place].seen
                    && matches!(phase, Phase::Restoring | Phase::Ready | Phase::Busy)
                {
                    (*phase, *since) = (Phase::Draining, now);
                }
            }
            Effect::KillPod { pod, reason } => {
                if let Some(place) = self.place_of(*pod) {
                    self.pods[place].end.had_nothing_to_save |= *reason == KillReason::Erased;
                    self.exit(place, Ending::Died);
                }
            }
            Effect::LetGo { pod } => {
                if let Some(place) = self.place_of(*pod)
                    && self.pods[place].epoch.is_none()
                {
                    self.remove(place);
                }
            }
            Effect::DeletePod { pod } => {
                if let Some(place) = self.place_of(*pod) {
                    self.remove(place);
                }
            }
            Effect::FinishErase => self.desired = Desired::default(),
        }
    }

    /// The sidecar takes the first assignment that it gets, and the vault's fence judges its first contact.
    fn assign(&mut self, place: usize, epoch: Epoch) {
        let pod = &mut self.pods[place];
        if pod.refuses || !matches!(pod.seen, PodSeen::Blank { .. }) {
            if pod.epoch.is_none() {
                pod.seen = PodSeen::Refused {
                    pod: pod.reference.uid,
                };
            }
            return;
        }
        pod.epoch = Some(epoch);
        pod.seen = PodSeen::Assigned {
            pod: pod.reference.uid,
            phase: Phase::Restoring,
            since: self.now,
            committed: false,
            fell_back: false,
            detail: String::new(),
        };
        if epoch < self.fence {
            return self.exit(place, Ending::Died);
        }
        self.facts.acts.push(Act {
            epoch,
            pod: pod.reference.uid,
            fence: self.fence,
        });
        self.fence = epoch;
        self.facts.fences.push(epoch);
    }

    fn remove(&mut self, place: usize) {
        let pod = &mut self.pods[place];
        if pod.epoch.is_some() {
            match pod.seen {
                PodSeen::Exited { ending, .. } => {
                    pod.end.was_saved = ending == Ending::Slept;
                    pod.end.had_nothing_to_save |= ending == Ending::Discarded;
                }
                PodSeen::None
                | PodSeen::Starting { .. }
                | PodSeen::Unborn { .. }
                | PodSeen::Blank { .. }
                | PodSeen::Refused { .. }
                | PodSeen::Assigned { .. } => {}
            }
            self.facts.removed_pods.push(pod.end);
        }
        self.pods[place].seen = PodSeen::None;
    }

    fn rest(&self) -> Option<Rest> {
        let observed = self.observed();
        let plan = (self.planner)(&self.desired, &observed, &self.policy, self.now);
        let rests = observed.status.state == LearnerState::Asleep
            && plan.status.state == LearnerState::Asleep
            && observed.pod == PodSeen::None;
        rests.then(|| Rest {
            pods: self
                .pods
                .iter()
                .filter(|pod| pod.seen != PodSeen::None)
                .count(),
            effects: plan.effects.len(),
            writes: usize::from(plan.write != Write::Nothing),
            timers: usize::from(plan.requeue_at.is_some()),
        })
    }
}
