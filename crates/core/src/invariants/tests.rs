use strum::IntoEnumIterator;
use uuid::Uuid;

use super::*;
use crate::event::EventBody;
use crate::id::{Epoch, Generation, PodUid};
use crate::learner::LearnerState;
use crate::money::NanoUsd;

fn act(epoch: u64, pod: u128, fence: u64) -> Act {
    Act {
        epoch: Epoch(epoch),
        pod: PodUid(Uuid::from_u128(pod)),
        fence: Epoch(fence),
    }
}

fn head(generation: u64, holds: &[usize], ends: Option<usize>) -> HeadFacts {
    HeadFacts {
        generation: Generation(generation),
        parent: Generation(generation - 1),
        is_readable: true,
        holds: holds.to_vec(),
        ends,
    }
}

fn turn(state: TurnState, outcomes: u32) -> TurnFacts {
    TurnFacts {
        answered: true,
        stored: Some(state),
        outcomes,
        reported_done: state == TurnState::Done,
    }
}

/// A learner with a committed turn, a failed one, a final snapshot, a committed one in a second incarnation, and more to do.
fn sound() -> Facts {
    Facts {
        acts: vec![act(3, 30, 2), act(5, 50, 3)],
        fences: vec![Epoch(2), Epoch(3), Epoch(5)],
        turns: vec![
            turn(TurnState::Done, 1),
            turn(TurnState::Failed, 1),
            turn(TurnState::Done, 1),
            turn(TurnState::Running, 0),
            turn(TurnState::Queued, 0),
        ],
        heads: vec![
            head(1, &[0], Some(0)),
            head(2, &[0], None),
            head(3, &[0, 2], Some(2)),
        ],
        removed_pods: vec![RemovedPod {
            had_nothing_to_save: false,
            was_saved: true,
            was_said_at_risk: false,
        }],
        money: MoneyFacts {
            limit: NanoUsd(10),
            charged: NanoUsd(7),
            held: NanoUsd(3),
            spent: NanoUsd(8),
        },
        rest: Some(Rest {
            pods: 0,
            effects: 0,
            writes: 0,
            timers: 0,
        }),
    }
}

fn broken(change: impl FnOnce(&mut Facts)) -> Vec<Invariant> {
    let mut facts = sound();
    change(&mut facts);
    Invariant::iter().filter(|i| !i.holds(&facts)).collect()
}

#[test]
fn a_sound_learner_breaks_nothing() {
    assert_eq!(broken(|_| ()), []);
}

#[test]
fn an_old_pod_that_acts_after_a_new_one_breaks_the_first() {
    assert_eq!(
        broken(|f| f.acts.push(act(3, 30, 3))),
        [Invariant::OnePodActs]
    );
    assert_eq!(
        broken(|f| f.acts.push(act(5, 51, 5))),
        [Invariant::OnePodActs]
    );
    assert_eq!(
        broken(|f| f.acts.push(act(6, 50, 5))),
        [Invariant::OnePodActs]
    );
}

#[test]
fn a_fence_that_falls_or_lets_through_breaks_the_second() {
    assert_eq!(
        broken(|f| f.fences.push(Epoch(4))),
        [Invariant::EpochsFence]
    );
    assert_eq!(
        broken(|f| f.acts[1].fence = Epoch(6)),
        [Invariant::EpochsFence]
    );
}

#[test]
fn a_lost_message_a_second_outcome_and_a_turn_out_of_order_break_the_third() {
    assert_eq!(
        broken(|f| f.turns[4].stored = None),
        [Invariant::OneOutcome]
    );
    assert_eq!(broken(|f| f.turns[1].outcomes = 2), [Invariant::OneOutcome]);
    assert_eq!(
        broken(|f| f.turns[4].stored = Some(TurnState::Running)),
        [Invariant::OneOutcome]
    );
}

#[test]
fn work_that_is_repeated_lost_or_reported_too_early_breaks_the_fourth() {
    for change in [
        (|f| f.heads[2].holds = vec![0, 0, 2]) as fn(&mut Facts),
        |f| f.heads[2].holds = vec![2],
        |f| f.heads[2].parent = Generation(1),
        |f| f.heads.push(head(4, &[0, 2, 2], Some(2))),
        |f| f.heads.push(head(4, &[0, 2, 1], Some(1))),
        |f| f.turns[3].reported_done = true,
    ] {
        assert_eq!(broken(change), [Invariant::CommitsWhole]);
    }
}

#[test]
fn an_unreadable_head_and_a_silent_loss_break_the_fifth() {
    assert_eq!(
        broken(|f| f.heads[2].is_readable = false),
        [Invariant::LastGoodStays]
    );
    assert_eq!(
        broken(|f| f.removed_pods[0].was_saved = false),
        [Invariant::LastGoodStays]
    );
}

#[test]
fn too_much_held_and_spending_that_nothing_covers_break_the_sixth() {
    assert_eq!(
        broken(|f| f.money.held = NanoUsd(4)),
        [Invariant::WithinBudget]
    );
    assert_eq!(
        broken(|f| f.money.spent = NanoUsd(11)),
        [Invariant::WithinBudget]
    );
}

#[test]
fn a_timer_at_rest_breaks_the_seventh() {
    let timer = |f: &mut Facts| f.rest.as_mut().unwrap().timers = 1;
    assert_eq!(broken(timer), [Invariant::IdleCostsNothing]);
}

#[test]
fn secrets_in_reach_of_an_agent_or_of_another_learner_break_the_eighth() {
    let (ada, bob) = ("ada".parse().unwrap(), "bob".parse().unwrap());
    let sidecar = Holder::Sidecar(ada);
    let agent = Holder::Agent("ada".parse().unwrap());
    let own = Secret::DataKey("ada".parse().unwrap());
    let others = Secret::DataKey(bob);
    assert!(secrets_stay_home([(&sidecar, &own)]));
    assert!(!secrets_stay_home([(&sidecar, &own), (&sidecar, &others)]));
    assert!(!secrets_stay_home([(&agent, &own)]));
    assert!(!secrets_stay_home([(&sidecar, &Secret::ProviderKey)]));
}

#[test]
fn a_read_model_that_counts_an_event_twice_breaks_the_ninth() {
    let charged = |model: &str, cost| EventBody::Charged {
        model: model.to_owned(),
        class: "free".parse().unwrap(),
        cost: NanoUsd(cost),
        input_tokens: 11,
        output_tokens: 13,
    };
    let other = EventBody::StateChanged {
        state: LearnerState::Ready,
        epoch: Epoch(4),
    };
    let events = [
        charged("demo/a", 5),
        other,
        charged("demo/b", 7),
        charged("demo/a", 17),
    ];
    let usage = usage_by_model(&events);
    assert_eq!(usage["demo/a"].cost_nano_usd, NanoUsd(22));
    assert_eq!(usage["demo/a"].input_tokens, 22);
    assert!(read_models_are_folds(&usage, &events));
    assert!(!read_models_are_folds(
        &usage,
        events.iter().chain(&events[..1])
    ));
}
