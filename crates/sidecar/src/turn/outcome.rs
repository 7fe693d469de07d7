//! How the agent's part of a turn ended.

use std::fmt::Display;

use carrel_core::turn::FailureCode;

use crate::agent_log::AgentLog;
use crate::attempt::TooMuch;
use crate::awake::{Awake, describe};
use crate::link;
use crate::shim::protocol::End;

/// How the agent's part of a turn ended.
pub(super) enum Outcome {
    /// Well, or by a wish.
    Ended(Ended),
    /// Badly, and so that running it again would not help by itself.
    Failed {
        code: FailureCode,
        detail: String,
        retryable: bool,
        reason: String,
    },
    /// By a death.
    Died { by_agent: bool, reason: String },
}

/// A turn's end that is to be committed.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) stopped: bool,
    pub(super) files: Vec<ReplyPath>,
}

/// A file that the agent named as part of its reply.
pub(super) struct ReplyPath {
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) path: String,
}

impl Outcome {
    /// The agent failed in a way that is no verdict of its own.
    pub(super) fn fault(what: &str, why: &dyn Display) -> Self {
        Self::Failed {
            code: FailureCode::AgentFailed,
            detail: "The tutor could not answer.".to_owned(),
            retryable: true,
            reason: format!("{what}: {why}"),
        }
    }

    /// An order to the shim was not carried out.
    pub(super) fn lost(awake: &Awake, error: &link::Error) -> Self {
        match error {
            link::Error::Lost => Self::Died {
                by_agent: awake.pod.is_loss_by_agent(),
                reason: format!("{error} (often: it ran out of memory)"),
            },
            // That is no verdict on the message.
            link::Error::Refused(_) | link::Error::Socket(_) => Self::Died {
                by_agent: false,
                reason: error.to_string(),
            },
        }
    }

    /// The agent said more than a turn may hold.
    pub(super) fn too_much(_: TooMuch) -> Self {
        Self::Failed {
            code: FailureCode::OutputLimit,
            detail: "The answer was too long.".to_owned(),
            retryable: true,
            reason: "the agent said more than a turn may hold".to_owned(),
        }
    }

    /// The agent's process ended, or its answer broke off, before it said that it was done.
    pub(super) fn broken_off(end: Option<End>, log: &AgentLog) -> Self {
        let reason = match end {
            Some(end) => describe(end),
            None => "the agent's answer broke off".to_owned(),
        };
        let reason = log.last_words(&reason);
        match end {
            Some(End::Signal(_)) => Self::Died {
                by_agent: true,
                reason,
            },
            None | Some(End::Code(0)) => Self::Failed {
                code: FailureCode::AgentEnded,
                detail: "The tutor stopped in the middle of its answer.".to_owned(),
                retryable: true,
                reason,
            },
            Some(End::Code(_)) => Self::Failed {
                code: FailureCode::AgentFailed,
                detail: "The tutor could not answer.".to_owned(),
                retryable: true,
                reason,
            },
        }
    }
}
