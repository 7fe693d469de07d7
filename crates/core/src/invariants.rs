//! The nine things that must always hold, as pure predicates: property tests, the model check, the lifecycle's
//! `debug_assert!` and the tests of other crates judge by the same lines.
//!
//! 1 to 7 are judged by [`Facts`], what is true of one learner whoever looks; a plan alone by [`plan`]; 8 by who holds
//! which secret; 9 by events. The words of each are in the design; the number is the same.

mod facts;
mod fold;
pub mod plan;
mod secrets;

pub use facts::{Act, Facts, HeadFacts, MoneyFacts, RemovedPod, Rest, TurnFacts};
pub use fold::{UsageByModel, read_models_are_folds, usage_by_model};
pub use secrets::{Holder, Secret, may_hold, secrets_stay_home};

use crate::turn::TurnState;

/// An invariant that [`Facts`] can break.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Invariant {
    /// 1: at most one pod acts for a learner at a time, and no pod in two epochs.
    OnePodActs,
    /// 2: the fence never falls, and nothing below it is accepted.
    EpochsFence,
    /// 3: an accepted message is never lost and has one outcome, in order, one at a time.
    OneOutcome,
    /// 4: a turn commits once, whole; only then is it reported done.
    CommitsWhole,
    /// 5: the head can always be read, and no pod is removed unsaved in silence.
    LastGoodStays,
    /// 6: nothing is spent past the budget.
    WithinBudget,
    /// 7: a sleeping learner causes nothing.
    IdleCostsNothing,
}

impl Invariant {
    /// Whether it holds.
    pub fn holds(self, facts: &Facts) -> bool {
        match self {
            Self::OnePodActs => one_pod_acts(facts),
            Self::EpochsFence => epochs_fence(facts),
            Self::OneOutcome => one_outcome(facts),
            Self::CommitsWhole => commits_whole(facts),
            Self::LastGoodStays => last_good_stays(facts),
            Self::WithinBudget => within_budget(facts),
            Self::IdleCostsNothing => idle_costs_nothing(facts),
        }
    }
}

/// 1: what was accepted came from rising epochs, from one pod each, and no pod had two epochs.
pub fn one_pod_acts(facts: &Facts) -> bool {
    let in_order = facts.acts.is_sorted_by_key(|act| act.epoch);
    let one_to_one = facts.acts.iter().all(|one| {
        let same = |other: &&Act| (one.epoch == other.epoch) != (one.pod == other.pod);
        facts.acts.iter().find(same).is_none()
    });
    in_order && one_to_one
}

/// 2: the fence only rises, and nothing below it was accepted.
pub fn epochs_fence(facts: &Facts) -> bool {
    facts.fences.is_sorted() && facts.acts.iter().all(|act| act.epoch >= act.fence)
}

/// 3: what the channel was told is stored; one outcome at most; a turn begins when all before it have ended.
pub fn one_outcome(facts: &Facts) -> bool {
    let kept = facts
        .turns
        .iter()
        .all(|turn| turn.stored.is_some() || !turn.answered);
    let once = facts.turns.iter().all(|turn| {
        let ended = turn.stored.is_some_and(TurnState::is_ended);
        turn.outcomes == u32::from(ended)
    });
    let has_begun = |state| matches!(state, Some(TurnState::Running | TurnState::Done));
    let in_order = facts.turns.iter().enumerate().all(|(place, turn)| {
        !has_begun(turn.stored)
            || facts.turns[..place]
                .iter()
                .all(|before| before.stored.is_none_or(TurnState::is_ended))
    });
    kept && once && in_order
}

/// 4: heads follow one another; each committed turn has one; a head holds the work of exactly the turns committed so far.
pub fn commits_whole(facts: &Facts) -> bool {
    let numbered = facts
        .heads
        .iter()
        .zip(1u64..)
        .all(|(head, number)| head.generation.0 == number && head.parent.0 + 1 == number);
    let mut committed = Vec::new();
    let whole = facts.heads.iter().all(|head| {
        committed.extend(head.ends);
        head.holds == committed
    });
    let once = facts.turns.iter().enumerate().all(|(place, turn)| {
        let commits = committed.iter().filter(|ended| **ended == place).count();
        let fits = match turn.stored {
            Some(TurnState::Done) => commits == 1,
            Some(TurnState::Stopped) => commits <= 1,
            Some(TurnState::Queued | TurnState::Running | TurnState::Failed) | None => commits == 0,
        };
        fits && (!turn.reported_done || commits == 1)
    });
    numbered && whole && once
}

/// 5: every head was durable when it became one and is; a pod went saved, with nothing to save, or said aloud.
pub fn last_good_stays(facts: &Facts) -> bool {
    facts.heads.iter().all(|head| head.is_readable)
        && facts
            .removed_pods
            .iter()
            .all(|pod| pod.had_nothing_to_save || pod.was_saved || pod.was_said_at_risk)
}

/// 6: what providers were really paid is covered by what is charged or held, and that by the budget.
pub fn within_budget(facts: &Facts) -> bool {
    let money = &facts.money;
    let covered = money.charged.0.checked_add(money.held.0);
    covered.is_some_and(|covered| covered <= money.limit.0 && money.spent.0 <= covered)
}

/// 7: at rest there is no pod, no effect, no write and no timer.
pub fn idle_costs_nothing(facts: &Facts) -> bool {
    let nothing = Rest {
        pods: 0,
        effects: 0,
        writes: 0,
        timers: 0,
    };
    facts.rest.is_none_or(|rest| rest == nothing)
}

#[cfg(test)]
mod tests;
