//! Everything that one learner's turn touches, in small numbers.

use std::collections::BTreeSet;

use carrel_core::invariants::Act;
use carrel_core::turn::TurnState;

/// Which rows a turn's work left in a workspace, in order.
pub(crate) type Workspace = Vec<u8>;

/// One state of the whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    /// Gateways, sorted: they have no names.
    pub(crate) owners: [Owner; 2],
    /// Incarnations, oldest first; partitioned ones live on.
    pub(crate) pods: Vec<Pod>,
    /// Calls whose senders have given up on them. Each may arrive at any time, several times or never.
    pub(crate) late: BTreeSet<Call>,
    /// Workspaces whose snapshots are durable.
    pub(crate) durable: BTreeSet<Workspace>,
    /// Messages whose senders were told that they are accepted.
    pub(crate) answered: BTreeSet<u8>,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// The newest epoch in the learner's status.
    pub(crate) epoch: u8,
    pub(crate) fence: u8,
    pub(crate) turns: Vec<Turn>,
    pub(crate) heads: Vec<Head>,
    /// What was accepted from incarnations, without repetitions.
    pub(crate) acts: Vec<Act>,
    pub(crate) fences: Vec<u8>,
    /// A write of an owner that had lost its lease was taken.
    pub(crate) stale_owner_wrote: bool,
}

/// A turn's row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    /// The sender's key of its message.
    pub(crate) message: u8,
    pub(crate) state: TurnState,
    pub(crate) epoch: u8,
    pub(crate) outcomes: u32,
    pub(crate) reported_done: bool,
    /// The number of its newest lease; 0: never claimed. A lease may run out at any moment.
    pub(crate) lease: u8,
}

/// A committed workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Head {
    pub(crate) parent: u8,
    pub(crate) workspace: Workspace,
    pub(crate) ends: Option<u8>,
}

/// A gateway. It forgets everything when it crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Idle,
    Holds {
        turn: u8,
        lease: u8,
        /// The epoch in which it knows that the attempt has begun.
        epoch: Option<u8>,
    },
}

/// A pod that was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    pub(crate) epoch: u8,
    pub(crate) phase: Phase,
}

/// What its sidecar does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It has its assignment and has not spoken with the store.
    Assigned,
    /// Only in the broken model: it has read the head and not yet raised the fence.
    HasRead {
        generation: u8,
        workspace: Workspace,
    },
    /// It waits for a turn.
    Ready {
        generation: u8,
        workspace: Workspace,
    },
    /// A turn runs; the workspace is as before it.
    Busy {
        generation: u8,
        workspace: Workspace,
        turn: u8,
    },
    /// The agent has ended and is frozen; the snapshot may be durable, the commit may be sent.
    Saving {
        generation: u8,
        workspace: Workspace,
        turn: Option<u8>,
    },
    /// It is gone, and with it what it had not committed.
    Ended,
}

/// A call of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    /// An owner begins an attempt.
    Begin { turn: u8, lease: u8, epoch: u8 },
    /// An owner says that the attempt's incarnation died.
    Died { turn: u8, lease: u8, epoch: u8 },
    /// An owner says that the turn failed.
    Fail { turn: u8, lease: u8 },
    /// An incarnation commits.
    Commit {
        pod: u8,
        epoch: u8,
        parent: u8,
        workspace: Workspace,
        turn: Option<u8>,
    },
}
