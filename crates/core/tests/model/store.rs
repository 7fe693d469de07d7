//! The store's rules, each one transaction.

use carrel_core::invariants::Act;
use carrel_core::turn::TurnState;
use carrel_core::{Epoch, PodUid};
use uuid::Uuid;

use crate::mutation::Mutation;
use crate::state::{Head, Store, Turn, Workspace};

/// What an owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerWrite {
    Written,
    NotOwner,
    Ended,
    Stale,
}

/// A commit, as sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit<'a> {
    pub(crate) pod: u8,
    pub(crate) epoch: u8,
    pub(crate) parent: u8,
    pub(crate) workspace: &'a Workspace,
    pub(crate) turn: Option<u8>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 0,
            fence: 0,
            turns: Vec::new(),
            heads: Vec::new(),
            acts: Vec::new(),
            fences: vec![0],
            stale_owner_wrote: false,
        }
    }

    /// The newest generation and its workspace.
    pub(crate) fn head(&self) -> (u8, Workspace) {
        let workspace = self.heads.last().map(|head| head.workspace.clone());
        (generation(&self.heads), workspace.unwrap_or_default())
    }

    /// A message arrives: the unique key tells a repeat.
    pub(crate) fn accept(&mut self, message: u8, broken: Option<Mutation>) {
        let known = self.turns.iter().any(|turn| turn.message == message);
        if !known || broken == Some(Mutation::ForgetsKeys) {
            self.turns.push(Turn {
                message,
                state: TurnState::Queued,
                epoch: 0,
                outcomes: 0,
                reported_done: false,
                lease: 0,
            });
        }
    }

    /// The oldest open turn; the lease on it, if there is one, has just run out.
    pub(crate) fn claim(&mut self, leases: u8, broken: Option<Mutation>) -> Option<(u8, u8)> {
        let is_open = |turn: &Turn| !turn.state.is_ended();
        let place = if broken == Some(Mutation::SkipsTheQueue) {
            self.turns.iter().rposition(is_open)
        } else {
            self.turns.iter().position(is_open)
        }?;
        let row = &mut self.turns[place];
        if row.lease == leases {
            return None;
        }
        row.lease += 1;
        Some((small(place), row.lease))
    }

    /// An owner's write: its lease must be the newest. One that has expired and was not taken over is still current.
    fn owned(
        &mut self,
        turn: u8,
        lease: u8,
        broken: Option<Mutation>,
    ) -> Result<&mut Turn, OwnerWrite> {
        let row = &mut self.turns[usize::from(turn)];
        if row.lease != lease {
            if broken != Some(Mutation::IgnoresLeases) {
                return Err(OwnerWrite::NotOwner);
            }
            self.stale_owner_wrote = true;
        }
        Ok(row)
    }

    pub(crate) fn begin(
        &mut self,
        turn: u8,
        lease: u8,
        epoch: u8,
        broken: Option<Mutation>,
    ) -> OwnerWrite {
        let fence = self.fence;
        match self.owned(turn, lease, broken) {
            Err(refusal) => refusal,
            Ok(row) if row.state.is_ended() => OwnerWrite::Ended,
            Ok(row) if epoch < fence || epoch < row.epoch => OwnerWrite::Stale,
            Ok(row) => {
                row.state = TurnState::Running;
                row.epoch = epoch;
                OwnerWrite::Written
            }
        }
    }

    pub(crate) fn died(
        &mut self,
        turn: u8,
        lease: u8,
        epoch: u8,
        broken: Option<Mutation>,
    ) -> OwnerWrite {
        match self.owned(turn, lease, broken) {
            Err(refusal) => refusal,
            Ok(row) if row.state.is_ended() && broken != Some(Mutation::RunsAgainWhatIsDone) => {
                OwnerWrite::Ended
            }
            Ok(row) => {
                if row.state != TurnState::Queued && row.epoch == epoch {
                    row.state = TurnState::Queued;
                }
                OwnerWrite::Written
            }
        }
    }

    pub(crate) fn fail(&mut self, turn: u8, lease: u8, broken: Option<Mutation>) -> OwnerWrite {
        match self.owned(turn, lease, broken) {
            Err(refusal) => refusal,
            Ok(row) if row.state.is_ended() && broken != Some(Mutation::FailsWithoutLock) => {
                OwnerWrite::Ended
            }
            Ok(row) => {
                row.state = TurnState::Failed;
                row.outcomes += 1;
                OwnerWrite::Written
            }
        }
    }

    /// Whether the epoch may act, as when it reserves money; a higher one raises the fence.
    pub(crate) fn passes(&mut self, pod: u8, epoch: u8) -> bool {
        if epoch < self.fence {
            return false;
        }
        self.act(pod, epoch);
        self.set_fence(epoch);
        true
    }

    fn set_fence(&mut self, fence: u8) {
        if self.fence != fence {
            self.fence = fence;
            self.fences.push(fence);
        }
    }

    fn act(&mut self, pod: u8, epoch: u8) {
        let act = Act {
            epoch: Epoch(epoch.into()),
            pod: PodUid(Uuid::from_u128(pod.into())),
            fence: Epoch(self.fence.into()),
        };
        let is_repeat = |last: &Act| (last.epoch, last.pod) == (act.epoch, act.pod);
        if act.fence > act.epoch || !self.acts.last().is_some_and(is_repeat) {
            self.acts.push(act);
        }
    }

    /// An incarnation's first contact: raises the fence and reads the head.
    pub(crate) fn contact(
        &mut self,
        pod: u8,
        epoch: u8,
        broken: Option<Mutation>,
    ) -> Option<(u8, Workspace)> {
        if broken == Some(Mutation::ContactLowersFence) {
            self.set_fence(epoch);
        }
        self.passes(pod, epoch).then(|| self.head())
    }

    /// Whether it is committed, now or before.
    pub(crate) fn commit(
        &mut self,
        commit: Commit<'_>,
        is_durable: bool,
        broken: Option<Mutation>,
    ) -> bool {
        let is_broken = |mutation| broken == Some(mutation);
        let repeated = self
            .heads
            .get(usize::from(commit.parent))
            .is_some_and(|head| head.workspace == *commit.workspace && head.ends == commit.turn);
        if repeated && !is_broken(Mutation::CommitsRepeats) {
            return commit.epoch >= self.fence;
        }
        if !is_durable && !is_broken(Mutation::CommitsBeforeDurable) {
            return false;
        }
        let head = generation(&self.heads);
        let at_parent = head == commit.parent
            || is_broken(Mutation::ReadsBeforeFencing)
            || (repeated && is_broken(Mutation::CommitsRepeats));
        let runs = commit.turn.is_none_or(|turn| {
            let row = &self.turns[usize::from(turn)];
            let is_running = row.state == TurnState::Running && row.epoch == commit.epoch;
            is_running || (repeated && is_broken(Mutation::CommitsRepeats))
        });
        if !at_parent || !runs {
            return false;
        }
        if is_broken(Mutation::CommitsUnfenced) {
            self.act(commit.pod, commit.epoch);
        } else if !self.passes(commit.pod, commit.epoch) {
            return false;
        }
        self.heads.push(Head {
            parent: if is_broken(Mutation::ReadsBeforeFencing) {
                head
            } else {
                commit.parent
            },
            workspace: commit.workspace.clone(),
            ends: commit.turn,
        });
        if let Some(turn) = commit.turn
            && !is_broken(Mutation::CommitsInHalves)
        {
            let row = &mut self.turns[usize::from(turn)];
            row.state = TurnState::Done;
            row.outcomes += 1;
        }
        true
    }
}

/// The number of the newest head.
pub(crate) fn generation(heads: &[Head]) -> u8 {
    small(heads.len())
}

/// A place or count of the model, all of which are small.
pub(crate) fn small(number: usize) -> u8 {
    u8::try_from(number).expect("the model is bounded far below 256")
}
