//! What can happen next, and what becomes of it.

use carrel_core::invariants::Invariant;
use strum::IntoEnumIterator;

use crate::facts::facts;
use crate::mutation::Mutation;
use crate::state::{Call, Owner, Phase, Pod, State};
use crate::store::{Commit, OwnerWrite, small};

/// The bounds of one check, the broken rule, and by what is judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desk {
    pub(crate) messages: u8,
    pub(crate) pods: usize,
    /// Owners that one turn may have in a row.
    pub(crate) leases: u8,
    /// Calls that may be on their way without a sender who waits.
    pub(crate) late: usize,
    pub(crate) broken: Option<Mutation>,
    /// One invariant only; `None` for all.
    pub(crate) judged: Option<Invariant>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A channel hands over a message, perhaps once more.
    Send { message: u8 },
    /// An owner claims the oldest open turn.
    Claims { owner: usize },
    /// An owner calls and hears the answer.
    Calls { owner: usize, call: Call },
    /// An owner calls and crashes; the call is on its way.
    CallsAndCrashes { owner: usize, call: Call },
    /// A gateway crashes and starts anew.
    Crashes { owner: usize },
    /// An owner hands its turn to the incarnation, perhaps once more.
    HandsOver { owner: usize },
    /// An owner sees in the store that its turn has ended.
    Sees { owner: usize },
    /// A late call arrives; nobody hears the answer.
    Arrives { call: Call },
    /// A fleet names a new incarnation: the old one died, or seems dead.
    Wakes,
    /// An incarnation takes its next step.
    GoesOn { pod: u8 },
    /// An incarnation spends money.
    Spends { pod: u8 },
    /// An incarnation's agent fails its turn.
    AgentFails { pod: u8 },
    /// An incarnation takes its final snapshot.
    Sleeps { pod: u8 },
    /// An incarnation's commit is on its way, and it does not wait for it.
    CommitsLate { pod: u8 },
    /// A pod, its sidecar or its node dies.
    Dies { pod: u8 },
}

impl Desk {
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.broken == Some(mutation)
    }

    pub(crate) fn keeps_its_word(&self, state: &State) -> bool {
        let facts = facts(state);
        match self.judged {
            Some(invariant) => invariant.holds(&facts),
            None => {
                !state.store.stale_owner_wrote && Invariant::iter().all(|one| one.holds(&facts))
            }
        }
    }

    /// Performs a call in the store; what an owner or a committer is told.
    pub(crate) fn performs(&self, state: &mut State, call: &Call) -> OwnerWrite {
        let broken = self.broken;
        match call {
            Call::Begin { turn, lease, epoch } => state.store.begin(*turn, *lease, *epoch, broken),
            Call::Died { turn, lease, epoch } => state.store.died(*turn, *lease, *epoch, broken),
            Call::Fail { turn, lease } => state.store.fail(*turn, *lease, broken),
            Call::Commit {
                pod,
                epoch,
                parent,
                workspace,
                turn,
            } => {
                let commit = Commit {
                    pod: *pod,
                    epoch: *epoch,
                    parent: *parent,
                    workspace,
                    turn: *turn,
                };
                let is_durable = state.durable.contains(workspace);
                if state.store.commit(commit, is_durable, broken) {
                    OwnerWrite::Written
                } else {
                    OwnerWrite::Stale
                }
            }
        }
    }

    /// The owner calls and hears the answer.
    pub(crate) fn calls(&self, state: &mut State, owner: usize, call: &Call) {
        let answer = self.performs(state, call);
        let Owner::Holds { turn, lease, epoch } = state.owners[owner] else {
            return;
        };
        let epoch = match (answer, call) {
            (OwnerWrite::Written, Call::Begin { epoch, .. }) => Some(*epoch),
            (OwnerWrite::Written, Call::Died { .. }) => None,
            (OwnerWrite::Stale, Call::Begin { .. } | Call::Died { .. }) => epoch,
            (OwnerWrite::NotOwner | OwnerWrite::Ended, _)
            | (_, Call::Fail { .. } | Call::Commit { .. }) => {
                state.owners[owner] = Owner::Idle;
                return;
            }
        };
        state.owners[owner] = Owner::Holds { turn, lease, epoch };
    }

    /// The incarnation takes a turn when it is ready; a second delivery attaches to the first.
    pub(crate) fn hands_over(state: &mut State, turn: u8, epoch: u8) {
        for pod in &mut state.pods {
            if pod.epoch == epoch
                && let Phase::Ready {
                    generation,
                    workspace,
                } = &pod.phase
                && !workspace.contains(&turn)
            {
                pod.phase = Phase::Busy {
                    generation: *generation,
                    workspace: workspace.clone(),
                    turn,
                };
            }
        }
    }

    /// The next step of a living incarnation.
    pub(crate) fn goes_on(&self, state: &mut State, place: u8) {
        let Pod { epoch, phase } = state.pods[usize::from(place)].clone();
        let next = match phase {
            Phase::Ended | Phase::Ready { .. } => phase,
            Phase::Assigned if self.is(Mutation::ReadsBeforeFencing) => {
                let (generation, workspace) = state.store.head();
                Phase::HasRead {
                    generation,
                    workspace,
                }
            }
            Phase::Assigned => match state.store.contact(place, epoch, self.broken) {
                Some((generation, workspace)) => Phase::Ready {
                    generation,
                    workspace,
                },
                None => Phase::Ended,
            },
            Phase::HasRead {
                generation,
                workspace,
            } => match state.store.contact(place, epoch, self.broken) {
                Some(_) => Phase::Ready {
                    generation,
                    workspace,
                },
                None => Phase::Ended,
            },
            Phase::Busy {
                generation,
                mut workspace,
                turn,
            } => {
                workspace.push(turn);
                state.store.turns[usize::from(turn)].reported_done |=
                    self.is(Mutation::ReportsBeforeCommit);
                Phase::Saving {
                    generation,
                    workspace,
                    turn: Some(turn),
                }
            }
            Phase::Saving {
                ref workspace,
                generation,
                turn,
            } => match commit_of(state, place) {
                Some(call) if self.may_send(state, &call) => {
                    match (self.performs(state, &call), turn) {
                        (OwnerWrite::Written, Some(_)) => Phase::Ready {
                            generation: generation + 1,
                            workspace: workspace.clone(),
                        },
                        (OwnerWrite::Written, None)
                        | (OwnerWrite::NotOwner | OwnerWrite::Ended | OwnerWrite::Stale, _) => {
                            Phase::Ended
                        }
                    }
                }
                Some(_) | None => {
                    state.durable.insert(workspace.clone());
                    phase
                }
            },
        };
        state.pods[usize::from(place)].phase = next;
    }

    /// A commit is sent when the snapshot is durable.
    pub(crate) fn may_send(&self, state: &State, call: &Call) -> bool {
        match call {
            Call::Commit { workspace, .. } => {
                self.is(Mutation::CommitsBeforeDurable) || state.durable.contains(workspace)
            }
            Call::Begin { .. } | Call::Died { .. } | Call::Fail { .. } => true,
        }
    }

    /// The agent failed: its work is discarded by ending the pod.
    pub(crate) fn agent_fails(&self, phase: Phase) -> Phase {
        match phase {
            Phase::Busy {
                generation,
                mut workspace,
                turn,
            } if self.is(Mutation::KeepsFailedWork) => {
                workspace.push(turn);
                Phase::Ready {
                    generation,
                    workspace,
                }
            }
            Phase::Assigned
            | Phase::HasRead { .. }
            | Phase::Ready { .. }
            | Phase::Busy { .. }
            | Phase::Saving { .. }
            | Phase::Ended => Phase::Ended,
        }
    }
}

/// What an owner may say.
pub(crate) fn words(state: &State, owner: Owner) -> Vec<Call> {
    let Owner::Holds { turn, lease, epoch } = owner else {
        return Vec::new();
    };
    let next = match epoch {
        None => Call::Begin {
            turn,
            lease,
            epoch: state.store.epoch,
        },
        Some(epoch) => Call::Died { turn, lease, epoch },
    };
    vec![next, Call::Fail { turn, lease }]
}

/// The commit that an incarnation would send.
pub(crate) fn commit_of(state: &State, pod: u8) -> Option<Call> {
    let Pod { epoch, phase } = &state.pods[usize::from(pod)];
    match phase {
        Phase::Saving {
            generation,
            workspace,
            turn,
        } => Some(Call::Commit {
            pod,
            epoch: *epoch,
            parent: *generation,
            workspace: workspace.clone(),
            turn: *turn,
        }),
        Phase::Assigned
        | Phase::HasRead { .. }
        | Phase::Ready { .. }
        | Phase::Busy { .. }
        | Phase::Ended => None,
    }
}

/// The steps of an incarnation.
pub(crate) fn steps_of(state: &State, pod: u8) -> Vec<Step> {
    let own = match &state.pods[usize::from(pod)].phase {
        Phase::Ended => return Vec::new(),
        Phase::Assigned | Phase::HasRead { .. } => None,
        Phase::Ready { .. } => Some(Step::Sleeps { pod }),
        Phase::Busy { .. } => Some(Step::AgentFails { pod }),
        Phase::Saving { .. } => Some(Step::CommitsLate { pod }),
    };
    let always = [
        Step::GoesOn { pod },
        Step::Spends { pod },
        Step::Dies { pod },
    ];
    always.into_iter().chain(own).collect()
}

/// The next message, and the first once more: messages differ by name only.
pub(crate) fn sendable(state: &State, messages: u8) -> impl Iterator<Item = u8> {
    let next = small(state.store.turns.len());
    let again = (next > 0).then_some(0);
    again.into_iter().chain((next < messages).then_some(next))
}
