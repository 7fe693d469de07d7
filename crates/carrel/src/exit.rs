//! Exit statuses that scripts may rely on, and the error that carries one.

use std::process::ExitCode;

/// Why a command ended badly; decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 1
    Failed,
    /// 1: the server does not answer, and may yet.
    Away,
    /// 2
    Usage,
    /// 4
    NotFound,
    /// 5
    NotAllowed,
    /// 6
    Conflict,
    /// 7
    TimedOut,
    /// 8
    OverBudget,
    /// 130
    Interrupted,
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(match kind {
            Kind::Failed | Kind::Away => 1,
            Kind::Usage => 2,
            Kind::NotFound => 4,
            Kind::NotAllowed => 5,
            Kind::Conflict => 6,
            Kind::TimedOut => 7,
            Kind::OverBudget => 8,
            Kind::Interrupted => 130,
        })
    }
}

/// An error with its exit status: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// The exit status of an error: its own, if it carries one.
pub(crate) fn kind_of(error: &anyhow::Error) -> Kind {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.kind;
    }
    if error.downcast_ref::<crate::config::Error>().is_some() {
        return Kind::Usage;
    }
    Kind::Failed
}
