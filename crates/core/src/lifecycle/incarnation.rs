//! The plan of a learner whose status names a pod: assignment, life, sleep and end of one incarnation.

use std::time::Duration;

use jiff::Timestamp;

use super::deadlines::{Policy, after};
use super::ended;
use super::names;
use super::observed::{Ending, Observed, Phase, PodSeen};
use super::outcome::{Effect, KillReason, Plan, SleepReason, Write, moved};
use crate::learner::{Desired, DesiredState, LearnerState, PodRef, Status};

pub(super) fn plan(
    desired: &Desired,
    observed: &Observed,
    named: &PodRef,
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    let incarnation = Incarnation {
        desired,
        stored: &observed.status,
        named,
        policy,
        now,
    };
    if observed.pod.uid() != Some(named.uid) {
        return incarnation.ended(Ending::Died, false, "its container is gone");
    }
    match &observed.pod {
        PodSeen::None => incarnation.ended(Ending::Died, false, "its container is gone"),
        PodSeen::Unborn { reason, .. } => incarnation
            .ended(Ending::Died, false, reason)
            .again_at(after(now, policy.retry))
            .with(Effect::LetGo { pod: named.uid }),
        PodSeen::Refused { .. } => incarnation
            .ended(Ending::Died, false, "its container refused the assignment")
            .says(names::ASSIGNED, false, names::REFUSED)
            .again_at(after(now, policy.retry))
            .with(Effect::LetGo { pod: named.uid }),
        PodSeen::Exited {
            ending,
            committed,
            reason,
            ..
        } => incarnation
            .ended(*ending, *committed, reason)
            .again_at(after(now, policy.retry))
            .with(Effect::DeletePod { pod: named.uid }),
        PodSeen::Starting { since, .. } => incarnation.silent(*since),
        PodSeen::Blank { .. } => incarnation.assign(),
        PodSeen::Assigned {
            phase,
            since,
            committed,
            fell_back,
            detail,
            ..
        } => incarnation
            .live(observed.make_room, *phase, *since, detail)
            .young_no_more(&observed.status, *phase, *committed)
            .says(names::ASSIGNED, true, names::TAKEN)
            .says_restored(*phase, *fell_back),
    }
}

struct Incarnation<'a> {
    desired: &'a Desired,
    stored: &'a Status,
    named: &'a PodRef,
    policy: &'a Policy,
    now: Timestamp,
}

/// How long something may last, and what is said when it lasts longer.
struct Limit {
    since: Timestamp,
    span: Duration,
    reason: KillReason,
    detail: &'static str,
}

impl Incarnation<'_> {
    fn ended(&self, ending: Ending, committed: bool, reason: &str) -> Plan {
        ended::plan(
            self.desired,
            self.stored,
            ending,
            committed,
            reason,
            self.now,
        )
    }

    fn moved(&self, state: LearnerState, detail: &str) -> Plan {
        Plan::to(self.stored, moved(self.stored, state, detail, self.now))
    }

    fn kill(&self, state: LearnerState, reason: KillReason, detail: &str) -> Plan {
        let plan = self
            .moved(state, detail)
            .again_at(after(self.now, self.policy.retry))
            .with(Effect::KillPod {
                pod: self.named.uid,
                reason,
            });
        if reason.risks_data(self.stored.state) {
            plan.says(names::DATA_AT_RISK, true, names::DEADLINE_PASSED)
        } else {
            plan
        }
    }

    /// Stays in a state until its deadline, then ends the pod.
    fn until(&self, state: LearnerState, detail: &str, limit: &Limit) -> Plan {
        let deadline = after(limit.since, limit.span);
        if self.now < deadline {
            self.moved(state, detail).again_at(deadline)
        } else {
            self.kill(state, limit.reason, limit.detail)
        }
    }

    fn erase(&self) -> Plan {
        let detail = "it is being erased";
        self.kill(LearnerState::Deleting, KillReason::Erased, detail)
    }

    fn silent(&self, since: Timestamp) -> Plan {
        if self.desired.deleting {
            return self.erase();
        }
        let limit = Limit {
            since,
            span: self.policy.silent,
            reason: KillReason::Silent,
            detail: "its container did not answer in time",
        };
        self.until(self.stored.state, "its container does not answer", &limit)
    }

    fn assign(&self) -> Plan {
        if self.desired.deleting {
            return self.erase();
        }
        if self.desired.state == DesiredState::Asleep {
            let detail = "it is not wanted any more";
            return self.kill(LearnerState::Waking, KillReason::NotWanted, detail);
        }
        let limit = Limit {
            since: self.stored.since.unwrap_or(self.now),
            span: self.policy.assign,
            reason: KillReason::AssignOverdue,
            detail: "its container did not take the assignment in time",
        };
        let detail = "its container is told whose it is";
        let plan = self.until(LearnerState::Waking, detail, &limit);
        if plan.effects.is_empty() {
            let retry = after(self.now, self.policy.retry);
            plan.again_at(retry).with(Effect::Assign {
                epoch: self.stored.epoch,
                pod: self.named.clone(),
            })
        } else {
            plan
        }
    }

    fn live(&self, make_room: bool, phase: Phase, since: Timestamp, detail: &str) -> Plan {
        if self.desired.deleting {
            return self.erase();
        }
        if let Some(reason) = self.sleep_reason(make_room, phase, since) {
            return self.ask_to_sleep(reason);
        }
        let limit = |span, reason, detail| Limit {
            since,
            span,
            reason,
            detail,
        };
        let policy = self.policy;
        match phase {
            Phase::Restoring => {
                let late = "restoring and starting the agent took too long";
                let limit = limit(policy.restore, KillReason::RestoreOverdue, late);
                self.until(LearnerState::Restoring, detail, &limit)
            }
            Phase::Ready => self
                .moved(LearnerState::Ready, detail)
                .again_at(after(since, policy.max_awake)),
            Phase::Busy => {
                let late = "its turn took longer than a turn and its commit may";
                let limit = limit(policy.turn, KillReason::TurnOverdue, late);
                self.until(LearnerState::Busy, detail, &limit)
            }
            Phase::Draining => {
                let late = "it did not drain in time";
                let limit = limit(policy.drain, KillReason::DrainOverdue, late);
                self.until(LearnerState::Draining, detail, &limit)
            }
            Phase::Snapshotting => {
                let late = "its final snapshot took too long";
                let limit = limit(policy.snapshot, KillReason::SnapshotOverdue, late);
                self.until(LearnerState::Snapshotting, detail, &limit)
            }
        }
    }

    /// Why the sidecar has to be told to sleep, which it otherwise decides by itself.
    fn sleep_reason(&self, make_room: bool, phase: Phase, since: Timestamp) -> Option<SleepReason> {
        match (phase, self.desired.state) {
            (Phase::Draining | Phase::Snapshotting, _)
            | (Phase::Restoring | Phase::Busy, DesiredState::Auto | DesiredState::Running) => None,
            (Phase::Restoring | Phase::Ready | Phase::Busy, DesiredState::Asleep) => {
                Some(SleepReason::Wished)
            }
            (Phase::Ready, DesiredState::Auto | DesiredState::Running) => {
                let too_long = self.now >= after(since, self.policy.max_awake);
                if make_room {
                    Some(SleepReason::MakeRoom)
                } else {
                    too_long.then_some(SleepReason::AwakeTooLong)
                }
            }
        }
    }

    /// The deadline counts from the first asking, which therefore is stored.
    fn ask_to_sleep(&self, reason: SleepReason) -> Plan {
        let asked_before = self.stored.state == LearnerState::Draining;
        let limit = Limit {
            since: self
                .stored
                .since
                .filter(|_| asked_before)
                .unwrap_or(self.now),
            span: self.policy.drain,
            reason: KillReason::DrainOverdue,
            detail: "it was asked to sleep and did not",
        };
        let plan = self.until(LearnerState::Draining, "it is asked to sleep", &limit);
        if !plan.effects.is_empty() {
            return plan;
        }
        let retry = after(self.now, self.policy.retry);
        Plan {
            write: if asked_before {
                plan.write
            } else {
                Write::Must
            },
            ..plan.again_at(retry).with(Effect::AskToSleep {
                pod: self.named.uid,
                reason,
            })
        }
    }
}

impl Plan {
    /// An incarnation that has committed ends the row of those that died young, once it is ready again.
    fn young_no_more(mut self, stored: &Status, phase: Phase, committed: bool) -> Self {
        if committed && phase == Phase::Ready && stored.young_deaths > 0 {
            self.status.young_deaths = 0;
            self.write = Write::Must;
        }
        self
    }

    fn says_restored(self, phase: Phase, fell_back: bool) -> Self {
        match (phase, fell_back) {
            (Phase::Restoring, _) => self.says(names::RESTORED, false, names::IN_PROGRESS),
            (Phase::Ready | Phase::Busy | Phase::Draining | Phase::Snapshotting, true) => {
                let message = "its newest state was damaged; the newest intact one was taken";
                self.tells(names::RESTORED, true, names::FELL_BACK, message)
            }
            (Phase::Ready | Phase::Busy | Phase::Draining | Phase::Snapshotting, false) => {
                self.says(names::RESTORED, true, names::FROM_HEAD)
            }
        }
    }
}
