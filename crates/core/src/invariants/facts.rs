//! What is true of one learner: the small abstract state by which the invariants judge.

use crate::id::{Epoch, Generation, PodUid};
use crate::money::NanoUsd;
use crate::turn::TurnState;

/// What is true of one learner, whoever looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Facts {
    /// Commits, reservations and reads that were accepted, in the store's order; equal neighbours may be merged.
    pub acts: Vec<Act>,
    /// The values of the fence, in order; equal neighbours may be merged.
    pub fences: Vec<Epoch>,
    /// The messages sent, in order of acceptance.
    pub turns: Vec<TurnFacts>,
    /// The heads, oldest first.
    pub heads: Vec<HeadFacts>,
    /// Pods that were incarnations and were removed.
    pub removed_pods: Vec<RemovedPod>,
    /// The money.
    pub money: MoneyFacts,
    /// What a learner at rest causes; `None` when it does not rest.
    pub rest: Option<Rest>,
}

/// Something that the store let an incarnation do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Act {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its pod.
    pub pod: PodUid,
    /// The fence just before.
    pub fence: Epoch,
}

/// One message and its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TurnFacts {
    /// The channel was told that it is accepted.
    pub answered: bool,
    /// What the store holds.
    pub stored: Option<TurnState>,
    /// How often an outcome was written.
    pub outcomes: u32,
    /// Somebody was told `done`.
    pub reported_done: bool,
}

/// One head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeadFacts {
    /// Its number.
    pub generation: Generation,
    /// The number it came from.
    pub parent: Generation,
    /// Whether its snapshot is durable and can be read.
    pub is_readable: bool,
    /// Places of the turns whose work is in the workspace, in the order in which it was done.
    pub holds: Vec<usize>,
    /// Place of the turn that it ended.
    pub ends: Option<usize>,
}

/// The end of a pod that was an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemovedPod {
    /// It was never ready, or the learner is being erased, or what it had done was discarded on purpose.
    pub had_nothing_to_save: bool,
    /// Its final snapshot was committed.
    pub was_saved: bool,
    /// `DataAtRisk` was said.
    pub was_said_at_risk: bool,
}

/// Money of one learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MoneyFacts {
    /// The budget.
    pub limit: NanoUsd,
    /// Settled.
    pub charged: NanoUsd,
    /// Reserved and not settled.
    pub held: NanoUsd,
    /// What providers will bill.
    pub spent: NanoUsd,
}

/// What a learner at rest causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rest {
    /// Pods.
    pub pods: usize,
    /// Effects of a plan.
    pub effects: usize,
    /// Writes of a plan.
    pub writes: usize,
    /// Wishes of a plan to look again.
    pub timers: usize,
}
