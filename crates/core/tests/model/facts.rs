//! What the invariants judge of a state.

use carrel_core::invariants::{Facts, HeadFacts, TurnFacts};
use carrel_core::{Epoch, Generation};

use crate::state::State;

/// The facts of a state. Turns are told by message: what counts is what its sender sees.
pub(crate) fn facts(state: &State) -> Facts {
    let store = &state.store;
    let messages = messages(state);
    let place = |turn: u8| {
        let message = store.turns[usize::from(turn)].message;
        messages.iter().position(|known| *known == message)
    };
    Facts {
        acts: store.acts.clone(),
        fences: store
            .fences
            .iter()
            .map(|fence| Epoch((*fence).into()))
            .collect(),
        turns: messages
            .iter()
            .map(|message| turn(state, *message))
            .collect(),
        heads: store
            .heads
            .iter()
            .zip(1u64..)
            .map(|(head, number)| HeadFacts {
                generation: Generation(number),
                parent: Generation(head.parent.into()),
                is_readable: state.durable.contains(&head.workspace),
                holds: head
                    .workspace
                    .iter()
                    .filter_map(|turn| place(*turn))
                    .collect(),
                ends: head.ends.and_then(place),
            })
            .collect(),
        ..Facts::default()
    }
}

/// Messages in order of acceptance, then those that were only answered.
fn messages(state: &State) -> Vec<u8> {
    let stored = state.store.turns.iter().map(|turn| turn.message);
    let mut messages = Vec::new();
    for message in stored.chain(state.answered.iter().copied()) {
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    messages
}

fn turn(state: &State, message: u8) -> TurnFacts {
    let of_message = || {
        state
            .store
            .turns
            .iter()
            .filter(|turn| turn.message == message)
    };
    TurnFacts {
        answered: state.answered.contains(&message),
        stored: of_message().next().map(|turn| turn.state),
        outcomes: of_message().map(|turn| turn.outcomes).sum(),
        reported_done: of_message().any(|turn| turn.reported_done),
    }
}
