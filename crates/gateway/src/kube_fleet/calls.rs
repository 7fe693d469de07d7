//! Calls of the API server: each has an end, and what it refuses is told from its being away.

use std::time::Duration;

use carrel_protocol::fleet::Error;
use kube::core::Status;

/// For one call with the client's own repeats.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Answered(#[from] Box<kube::Error>),
    #[error("no answer in time")]
    Late,
}

/// Waits for a call.
pub(super) async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(ANSWERS_WITHIN, call).await {
        Ok(answer) => answer.map_err(|error| Failed::Answered(Box::new(error))),
        Err(_) => Err(Failed::Late),
    }
}

/// What the API server says when it refuses.
pub(super) fn refused(failed: &Failed) -> Option<&Status> {
    match failed {
        Failed::Answered(error) => match &**error {
            kube::Error::Api(status) => Some(status),
            _ => None,
        },
        Failed::Late => None,
    }
}

pub(super) fn away(doing: &'static str, failed: Failed) -> Error {
    Error::Unavailable {
        doing,
        source: Box::new(failed),
    }
}
