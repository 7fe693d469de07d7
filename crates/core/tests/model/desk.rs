//! The model: its states, its steps, and what must and what can happen.

use std::collections::BTreeSet;

use carrel_core::turn::TurnState;
use stateright::{Model, Property};

use crate::mutation::Mutation;
use crate::state::{Owner, Phase, Pod, State, Store, Turn};
use crate::steps::{Desk, Step, commit_of, sendable, steps_of, words};
use crate::store::small;

/// The property that the check is about.
pub(crate) const NOTHING_BREAKS: &str = "nothing breaks";

impl Model for Desk {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: Store::new(),
            owners: [Owner::Idle; 2],
            pods: Vec::new(),
            late: BTreeSet::new(),
            durable: BTreeSet::new(),
            answered: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend(sendable(state, self.messages).map(|message| Step::Send { message }));
        for (owner, holds) in state.owners.iter().enumerate() {
            let Owner::Holds { turn, epoch, .. } = *holds else {
                steps.push(Step::Claims { owner });
                continue;
            };
            steps.push(Step::Crashes { owner });
            if epoch.is_some() {
                steps.push(Step::HandsOver { owner });
            }
            if state.store.turns[usize::from(turn)].state.is_ended() {
                steps.push(Step::Sees { owner });
            }
            for call in words(state, *holds) {
                steps.push(Step::Calls {
                    owner,
                    call: call.clone(),
                });
                if state.late.len() < self.late {
                    steps.push(Step::CallsAndCrashes { owner, call });
                }
            }
        }
        // Owners have no names: two that are idle claim alike.
        if state.owners == [Owner::Idle; 2] {
            steps.pop();
        }
        let late = state.late.iter().cloned();
        steps.extend(late.map(|call| Step::Arrives { call }));
        if state.pods.len() < self.pods {
            steps.push(Step::Wakes);
        }
        steps.extend((0..small(state.pods.len())).flat_map(|pod| steps_of(state, pod)));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Send { message } => {
                state.answered.insert(message);
                if !self.is(Mutation::AnswersBeforeStoring) {
                    state.store.accept(message, self.broken);
                }
            }
            Step::Claims { owner } => {
                let (turn, lease) = state.store.claim(self.leases, self.broken)?;
                state.owners[owner] = Owner::Holds {
                    turn,
                    lease,
                    epoch: None,
                };
            }
            Step::Calls { owner, call } => self.calls(&mut state, owner, &call),
            Step::CallsAndCrashes { owner, call } => {
                state.owners[owner] = Owner::Idle;
                state.late.insert(call);
            }
            Step::Crashes { owner } => state.owners[owner] = Owner::Idle,
            Step::HandsOver { owner } => {
                if let Owner::Holds {
                    turn,
                    epoch: Some(epoch),
                    ..
                } = state.owners[owner]
                {
                    Self::hands_over(&mut state, turn, epoch);
                }
            }
            Step::Sees { owner } => {
                if let Owner::Holds { turn, .. } = state.owners[owner] {
                    let row = &mut state.store.turns[usize::from(turn)];
                    row.reported_done |= row.state == TurnState::Done;
                    state.owners[owner] = Owner::Idle;
                }
            }
            Step::Arrives { call } => {
                self.performs(&mut state, &call);
            }
            Step::Wakes => {
                let epoch = small(state.pods.len() + 1);
                let epoch = if self.is(Mutation::AssignsBeforeStoring) {
                    epoch.div_ceil(2)
                } else {
                    epoch
                };
                state.store.epoch = epoch;
                let phase = Phase::Assigned;
                state.pods.push(Pod { epoch, phase });
            }
            Step::GoesOn { pod } => self.goes_on(&mut state, pod),
            Step::Spends { pod } => {
                let epoch = state.pods[usize::from(pod)].epoch;
                state.store.passes(pod, epoch);
            }
            Step::AgentFails { pod } => {
                let pod = &mut state.pods[usize::from(pod)];
                pod.phase = self.agent_fails(pod.phase.clone());
            }
            Step::Sleeps { pod } => {
                let pod = &mut state.pods[usize::from(pod)];
                if let Phase::Ready {
                    generation,
                    workspace,
                } = pod.phase.clone()
                {
                    pod.phase = Phase::Saving {
                        generation,
                        workspace,
                        turn: None,
                    };
                }
            }
            Step::CommitsLate { pod } => {
                let call = commit_of(&state, pod)?;
                if self.may_send(&state, &call) {
                    state.late.insert(call);
                }
            }
            Step::Dies { pod } => state.pods[usize::from(pod)].phase = Phase::Ended,
        }
        state.owners.sort_unstable();
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.late.len() <= self.late && state.store.turns.len() <= usize::from(self.messages) + 1
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOTHING_BREAKS, Self::keeps_its_word),
            Property::sometimes("every message is answered", |desk: &Self, state: &State| {
                let turns = &state.store.turns;
                turns.len() == usize::from(desk.messages)
                    && turns.iter().all(|turn| turn.reported_done)
            }),
            Property::sometimes(
                "an old incarnation works beside a new one",
                |_, state: &State| {
                    let works = |pod: &&Pod| matches!(pod.phase, Phase::Busy { .. });
                    state.pods.iter().filter(works).count() > 1
                },
            ),
        ];
        if self.leases > 1 {
            properties.push(Property::sometimes(
                "a second owner's second incarnation commits",
                |_, state: &State| {
                    let late = |turn: &Turn| (turn.epoch, turn.lease) == (2, 2);
                    let done = |turn: &Turn| turn.state == TurnState::Done;
                    state
                        .store
                        .turns
                        .iter()
                        .any(|turn| late(turn) && done(turn))
                },
            ));
        }
        properties
    }
}
