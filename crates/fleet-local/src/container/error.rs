//! What can go wrong around a container, and how an operating system error gets its context.

use std::io;

/// Why a container could not be made, watched or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a step.
    #[error("{doing}")]
    System {
        /// What was being done, to what.
        doing: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The child that makes containers said why it could not.
    #[error("starting container: {0}")]
    Refused(String),
    /// The child that makes containers answered something else than its one JSON line.
    #[error("the container maker gave no answer: {0}")]
    NoAnswer(String),
    /// The thread that starts containers is gone: the runtime was closed.
    #[error("the container runtime is closed")]
    Closed,
}

/// Adds to a system error what was being done.
pub(crate) trait Doing<T> {
    /// Turns the error into [`Error::System`] with a description made only when needed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::System {
            doing: what(),
            source: source.into(),
        })
    }
}
