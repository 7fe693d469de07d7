//! The money of one learner: several model calls at once at the edge of the budget, routers that die between any two steps,
//! settlements that come late or twice, and a sweeper that does not wait.

use carrel_core::NanoUsd;
use carrel_core::invariants::{Facts, MoneyFacts, within_budget};
use rstest::rstest;
use stateright::{Checker, Model, Property};

const NOTHING_BREAKS: &str = "nothing is spent past the budget";
/// What a call may cost, what it does cost, and what there is.
const WORST_CASE: i64 = 3;
const COST: i64 = 1;
const BUDGET: i64 = 7;
const CALLERS: usize = 4;

/// Rules broken on purpose, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    /// Room is looked for before, and not when, the reservation is written.
    ReservesInHalves,
    /// A reservation whose router seems dead is released.
    SweepReleases,
    /// A repeated settlement gives back once more.
    SettlesTwice,
    /// The call is made first.
    SpendsFirst,
}

#[derive(Debug, Clone, Default)]
struct Purse {
    broken: Option<Mutation>,
}

/// A router's part of one call. It forgets it when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Caller {
    Wants,
    FoundRoom,
    Holds,
    HasSpent,
    Dead,
}

/// The store's row of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Row {
    None,
    Held,
    Charged(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// Sorted: calls have no names.
    calls: [(Caller, Row); CALLERS],
    spent: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    GoesOn(usize),
    Refused(usize),
    Settles(usize),
    Sweeps(usize),
    Dies(usize),
}

impl State {
    fn money(&self) -> MoneyFacts {
        let sum = |of: fn(Row) -> i64| NanoUsd(self.calls.iter().map(|(_, row)| of(*row)).sum());
        MoneyFacts {
            limit: NanoUsd(BUDGET),
            charged: sum(|row| match row {
                Row::Charged(charged) => charged,
                Row::None | Row::Held => 0,
            }),
            held: sum(|row| match row {
                Row::Held => WORST_CASE,
                Row::None | Row::Charged(_) => 0,
            }),
            spent: NanoUsd(self.spent),
        }
    }

    fn has_room(&self) -> bool {
        let money = self.money();
        money.charged.0 + money.held.0 + WORST_CASE <= BUDGET
    }
}

impl Purse {
    fn goes_on(&self, state: &mut State, place: usize) {
        let room = state.has_room();
        let (caller, row) = state.calls[place];
        state.calls[place] = match caller {
            Caller::Wants if room && self.broken == Some(Mutation::ReservesInHalves) => {
                (Caller::FoundRoom, row)
            }
            Caller::Wants if self.broken == Some(Mutation::SpendsFirst) => {
                state.spent += COST;
                (Caller::FoundRoom, row)
            }
            Caller::Wants if room => (Caller::Holds, Row::Held),
            Caller::FoundRoom => (Caller::Holds, Row::Held),
            Caller::Holds => {
                state.spent += COST;
                (Caller::HasSpent, row)
            }
            Caller::Wants | Caller::HasSpent | Caller::Dead => (caller, row),
        };
    }
}

impl Model for Purse {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            calls: [(Caller::Wants, Row::None); CALLERS],
            spent: 0,
        }]
    }

    fn actions(&self, _: &State, steps: &mut Vec<Step>) {
        let kinds = [
            Step::GoesOn,
            Step::Refused,
            Step::Settles,
            Step::Sweeps,
            Step::Dies,
        ];
        steps.extend((0..CALLERS).flat_map(|place| kinds.map(|kind| kind(place))));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::GoesOn(place) => self.goes_on(&mut state, place),
            Step::Refused(place) if state.calls[place].0 == Caller::Wants && !state.has_room() => {
                state.calls[place].0 = Caller::Dead;
            }
            Step::Refused(_) => {}
            // The settlement of a call that was made may arrive at any time, also from a router that is dead since.
            Step::Settles(place) => match state.calls[place] {
                (caller @ (Caller::HasSpent | Caller::Dead), Row::Held) => {
                    state.calls[place] = (caller, Row::Charged(COST));
                }
                (caller @ Caller::HasSpent, Row::Charged(charged))
                    if self.broken == Some(Mutation::SettlesTwice) =>
                {
                    state.calls[place] = (caller, Row::Charged(charged - (WORST_CASE - COST)));
                }
                _ => {}
            },
            Step::Sweeps(place) => {
                if let (caller, Row::Held) = state.calls[place] {
                    let released = self.broken == Some(Mutation::SweepReleases);
                    let charged = if released { 0 } else { WORST_CASE };
                    state.calls[place] = (caller, Row::Charged(charged));
                }
            }
            Step::Dies(place) => state.calls[place].0 = Caller::Dead,
        }
        state.calls.sort_unstable();
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.spent <= BUDGET + COST
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_BREAKS, |_, state: &State| {
                within_budget(&Facts {
                    money: state.money(),
                    ..Facts::default()
                })
            }),
            Property::sometimes(
                "a call is refused though less was spent",
                |_, state: &State| state.spent < BUDGET && !state.has_room(),
            ),
            Property::sometimes("every call is paid", |_, state: &State| {
                state.calls == [(Caller::HasSpent, Row::Charged(COST)); CALLERS]
            }),
        ]
    }
}

#[test]
fn no_order_of_calls_and_deaths_spends_past_the_budget() {
    let checker = Purse::default().checker().spawn_bfs().join();
    checker.assert_properties();
}

#[rstest]
#[case(Mutation::ReservesInHalves)]
#[case(Mutation::SweepReleases)]
#[case(Mutation::SettlesTwice)]
#[case(Mutation::SpendsFirst)]
fn a_purse_that_is_broken_on_purpose_is_found(#[case] broken: Mutation) {
    let broken = Some(broken);
    let checker = Purse { broken }.checker().spawn_bfs().join();
    assert!(checker.discovery(NOTHING_BREAKS).is_some());
}
