//! How a sidecar ends: its exit codes, which the fleet reads.

use std::process::ExitCode;

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
}

impl Exit {
    /// The exit code's meaning; `None` for one that no sidecar gives.
    pub fn from_code(code: i32) -> Option<Self> {
        use strum::IntoEnumIterator;
        Self::iter().find(|exit| i32::from(*exit as u8) == code)
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
