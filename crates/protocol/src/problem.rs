//! Problem documents (RFC 9457) with a stable `code` from one closed list.

use serde::{Deserialize, Serialize};

/// What went wrong; decides the status.
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
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// The body is not JSON of the expected shape, or has a field that is not known.
    InvalidBody,
    /// A header, path or query is missing or malformed.
    InvalidRequest,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body came too slowly.
    RequestTimeout,
    /// No token, or none that is valid.
    Unauthenticated,
    /// A valid token that may not do this.
    Forbidden,
    /// There is no such thing, or it is not yours.
    NotFound,
    /// There is, but not with this method.
    MethodNotAllowed,
    /// It exists and differs, or its state does not allow this.
    Conflict,
    /// The idempotency key was used with another body.
    IdempotencyKeyReused,
    /// Too many turns of this learner wait.
    QueueFull,
    /// Too many new messages of this learner in a minute.
    RateLimited,
    /// The epoch is below the learner's fence.
    StaleEpoch,
    /// The head is not at the parent.
    HeadMoved,
    /// The turn is not running in this epoch.
    TurnNotRunning,
    /// The snapshot cannot be read back.
    SnapshotUnreadable,
    /// The learner's agent cannot be reached, or has ended.
    AgentUnavailable,
    /// The pod is another learner's or another epoch's.
    Misdirected,
    /// The sidecar falls asleep and takes no more turns.
    Draining,
    /// The store, the vault's storage or the fleet is away; try again.
    Unavailable,
    /// A defect; the log has the reason.
    Internal,
}

impl Code {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidBody | Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict
            | Self::StaleEpoch
            | Self::HeadMoved
            | Self::TurnNotRunning
            | Self::Draining => 409,
            Self::BodyTooLarge => 413,
            Self::Misdirected => 421,
            Self::IdempotencyKeyReused | Self::SnapshotUnreadable => 422,
            Self::QueueFull | Self::RateLimited => 429,
            Self::Internal => 500,
            Self::AgentUnavailable => 502,
            Self::Unavailable => 503,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::InvalidBody => "the body cannot be used",
            Self::InvalidRequest => "the request cannot be used",
            Self::BodyTooLarge => "the body is too large",
            Self::RequestTimeout => "the request came too slowly",
            Self::Unauthenticated => "a valid token is needed",
            Self::Forbidden => "this token may not do this",
            Self::NotFound => "there is no such thing here",
            Self::MethodNotAllowed => "this path does not take this method",
            Self::Conflict => "it is in the way of what is there",
            Self::IdempotencyKeyReused => "the idempotency key was used with another body",
            Self::QueueFull => "too many messages wait",
            Self::RateLimited => "too many messages in a minute",
            Self::StaleEpoch => "a newer incarnation exists",
            Self::HeadMoved => "the head is elsewhere",
            Self::TurnNotRunning => "the turn is not running in this epoch",
            Self::SnapshotUnreadable => "the snapshot cannot be read back",
            Self::AgentUnavailable => "the learner's agent cannot be reached",
            Self::Misdirected => "this pod is not that learner's",
            Self::Draining => "no more turns are taken here",
            Self::Unavailable => "try again shortly",
            Self::Internal => "something went wrong on our side",
        }
    }
}

/// A problem document. Unknown members are kept apart from ours by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, for programs.
    pub code: Code,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, in a few words that do not change.
    pub title: String,
    /// What to do about it here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The learner's fence, with `stale_epoch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The request's id, to find it in logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with a sentence that says what to do. Never put a secret or a learner's text into it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            title: code.title().to_owned(),
            detail: detail.into(),
            fence: None,
            request_id: None,
        }
    }

    /// The refusal of an epoch below the fence, which it names.
    pub fn stale_epoch(fence: carrel_core::Epoch) -> Self {
        let mut problem = Self::new(Code::StaleEpoch, "assign again above the fence");
        problem.fence = Some(fence.0);
        problem
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The details of these say what is wrong by themselves.
        let is_whole = matches!(
            self.code,
            Code::NotFound | Code::InvalidBody | Code::InvalidRequest | Code::Conflict
        );
        match self.detail.as_str() {
            "" => f.write_str(&self.title),
            detail if is_whole => f.write_str(detail),
            detail => write!(f, "{}: {detail}", self.title),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_sentence_that_says_nothing_twice() {
        let said = |code, detail: &str| Problem::new(code, detail).to_string();
        let nobody = "there is no such learner";
        assert_eq!(said(Code::NotFound, nobody), nobody);
        assert_eq!(said(Code::NotFound, ""), "there is no such thing here");
        assert_eq!(
            said(Code::QueueFull, "wait for answers"),
            "too many messages wait: wait for answers"
        );
    }
}
