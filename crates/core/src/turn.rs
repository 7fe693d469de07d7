//! What a turn is, and what a death during it means.

use serde::{Deserialize, Serialize};

/// Infrastructure deaths after which a turn is parked all the same.
pub const MAX_INFRASTRUCTURE_DEATHS: u32 = 20;
/// Deaths of the agent by a foreign signal after which the message is parked.
pub const MAX_AGENT_DEATHS: u32 = 3;

/// Where a turn is: `queued → running → done | failed | stopped`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TurnState {
    /// Accepted, waiting for its place.
    Queued,
    /// Handed to an incarnation.
    Running,
    /// Committed whole.
    Done,
    /// Ended without a commit.
    Failed,
    /// Stopped by a wish; what was said and done until then is committed, or it never ran.
    Stopped,
}

impl TurnState {
    /// Whether nothing can change it any more.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Done | Self::Failed | Self::Stopped => true,
        }
    }
}

/// Who died during a turn.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Death {
    /// A server, sidecar, pod or node: not the message's fault.
    Infrastructure,
    /// The agent, by a signal that we did not send, seen by a living sidecar: counts against the message.
    Agent,
}

/// How often each died during one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Deaths {
    /// Servers, sidecars, pods, nodes.
    pub infrastructure: u32,
    /// The agent itself.
    pub agent: u32,
}

/// What follows from a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterDeath {
    /// The turn runs again from the head, in a new incarnation.
    RunAgain,
    /// The turn fails; the learner gets an apology and the operator the reason.
    Park,
}

impl Deaths {
    /// The count with one more death in it.
    pub fn with(self, death: Death) -> Self {
        match death {
            Death::Infrastructure => Self {
                infrastructure: self.infrastructure + 1,
                ..self
            },
            Death::Agent => Self {
                agent: self.agent + 1,
                ..self
            },
        }
    }

    /// What follows when this is the count.
    pub fn verdict(self) -> AfterDeath {
        if self.agent >= MAX_AGENT_DEATHS || self.infrastructure >= MAX_INFRASTRUCTURE_DEATHS {
            AfterDeath::Park
        } else {
            AfterDeath::RunAgain
        }
    }
}

/// Why a turn failed; the `code` of its `error` event.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FailureCode {
    /// The agent's own error line, or an exit other than 0.
    AgentFailed,
    /// The agent ended without its last line.
    AgentEnded,
    /// The agent did not become ready.
    AgentNotReady,
    /// The turn took longer than the class allows.
    Timeout,
    /// The agent said more than a turn may.
    OutputLimit,
    /// The workspace is over the class's caps.
    WorkspaceLimit,
    /// The snapshot was refused or impossible.
    SnapshotFailed,
    /// The agent died three times on this message.
    AgentDied,
    /// Servers, sidecars, pods or nodes died too often under this turn.
    Parked,
    /// The budget is spent.
    BudgetExhausted,
    /// The model's provider could not be reached or refused.
    ModelUnavailable,
    /// The learner is being erased.
    LearnerClosed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_death_of_the_agent_parks_and_the_twentieth_of_anything_else() {
        let mut agent = Deaths::default();
        for expected in [AfterDeath::RunAgain, AfterDeath::RunAgain, AfterDeath::Park] {
            agent = agent.with(Death::Agent);
            assert_eq!(agent.verdict(), expected);
        }
        let nineteen = (0..19).fold(Deaths::default(), |d, _| d.with(Death::Infrastructure));
        assert_eq!(nineteen.verdict(), AfterDeath::RunAgain);
        assert_eq!(
            nineteen.with(Death::Infrastructure).verdict(),
            AfterDeath::Park
        );
    }
}
