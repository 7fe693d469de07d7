//! How a sidecar ends: its exit codes, which the fleet reads.

use std::process::ExitCode;

use carrel_core::lifecycle::Ending;

/// How a sidecar ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// Everything is committed, or there was nothing to commit.
    Clean = 0,
    /// Our own fault, or a machine that does not give what we need; the log has the reason.
    Internal = 1,
    /// A turn failed: its changes are discarded on purpose.
    TurnFailed = 10,
    /// The agent ended by itself, or was killed.
    AgentDied = 11,
    /// The agent did not become ready.
    AgentNotReady = 12,
    /// A newer incarnation exists.
    Fenced = 13,
    /// The vault did not answer in time; what was not committed is lost.
    VaultAway = 14,
    /// The shim, and with it the agent, is gone.
    ShimLost = 15,
    /// It was told to end and could not finish in time; what was not committed is lost.
    Interrupted = 16,
    /// The workspace holds more than may be kept, or its final snapshot was refused: what was not committed is lost.
    SnapshotRefused = 17,
    /// It reaches what its network must keep it from, and took nobody in.
    NotIsolated = 18,
}

impl Exit {
    /// The exit code's meaning; `None` for one that no sidecar gives.
    pub fn from_code(code: i32) -> Option<Self> {
        use strum::IntoEnumIterator;
        Self::iter().find(|exit| i32::from(*exit as u8) == code)
    }

    /// What it is to whoever made the pod.
    pub(crate) fn ending(self) -> Ending {
        match self {
            Self::Clean => Ending::Slept,
            Self::TurnFailed => Ending::Discarded,
            Self::Internal
            | Self::AgentDied
            | Self::AgentNotReady
            | Self::Fenced
            | Self::VaultAway
            | Self::ShimLost
            | Self::Interrupted
            | Self::SnapshotRefused
            | Self::NotIsolated => Ending::Died,
        }
    }

    /// Why, where nothing better is known.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Clean => "it fell asleep",
            Self::Internal => "the sidecar failed",
            Self::TurnFailed => "its last turn's changes were discarded",
            Self::AgentDied => "the agent ended by itself, or was killed",
            Self::AgentNotReady => "the agent did not become ready",
            Self::Fenced => "a newer incarnation exists",
            Self::VaultAway => "the vault did not answer in time",
            Self::ShimLost => "the agent's container has ended",
            Self::Interrupted => "it was told to end and could not finish in time",
            Self::SnapshotRefused => "the workspace could not be saved",
            Self::NotIsolated => "network policies are not enforced",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_exit_is_known_by_its_code_and_no_other_code_is_known() {
        for exit in Exit::iter() {
            assert_eq!(Exit::from_code(i32::from(exit as u8)), Some(exit));
        }
        assert_eq!(Exit::from_code(101), None, "a panic is no ending of ours");
    }
}
