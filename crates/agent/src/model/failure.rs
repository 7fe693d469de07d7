//! What a model call can fail with, and the sentence that a learner gets for it.

use std::time::Duration;

use carrel_core::turn::FailureCode;
use serde::Deserialize;

/// Longest of the provider's own sentences that is passed on.
const MAX_MESSAGE_CHARS: usize = 600;
/// A wait that a learner would rather take than fail. Longer ones are refused.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why a model call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody answered, or the answer broke off.
    #[error("the model could not be reached: {0}")]
    Unreachable(String),
    /// The provider is busy or broken, and says so.
    #[error("the model is busy: {message}")]
    Busy {
        message: String,
        /// How long it asks us to wait; nothing when it forbids another try.
        retry_after: Option<Duration>,
    },
    /// The learner's budget is spent. The message is written for the learner.
    #[error("the budget is spent: {0}")]
    BudgetSpent(String),
    /// The conversation is longer than the model can take.
    #[error("the conversation is too long: {0}")]
    TooLong(String),
    /// The provider refused what we sent.
    #[error("the model refused the request: {0}")]
    Refused(String),
}

impl Failure {
    /// How long to wait before another try; nothing when another try is of no use.
    pub(crate) fn retry_after(&self, tries: u32) -> Option<Duration> {
        let patience = Duration::from_millis(400) * 2_u32.saturating_pow(tries);
        match self {
            Self::Unreachable(_) => Some(patience),
            Self::Busy { retry_after, .. } => retry_after
                .filter(|wait| *wait <= LONGEST_WAIT)
                .map(|wait| wait.max(patience)),
            Self::BudgetSpent(_) | Self::TooLong(_) | Self::Refused(_) => None,
        }
    }

    /// The `code` of the turn's error.
    pub(crate) fn code(&self) -> FailureCode {
        match self {
            Self::Unreachable(_) | Self::Busy { .. } => FailureCode::ModelUnavailable,
            Self::BudgetSpent(_) => FailureCode::BudgetExhausted,
            Self::TooLong(_) | Self::Refused(_) => FailureCode::AgentFailed,
        }
    }

    /// A sentence for the learner.
    pub(crate) fn public_message(&self) -> String {
        match self {
            Self::Unreachable(_) => {
                "I could not reach the language model just now. Please try again in a moment."
                    .into()
            }
            Self::Busy { .. } => {
                "The language model is very busy just now. Please try again in a minute.".into()
            }
            Self::BudgetSpent(message) => message.clone(),
            Self::TooLong(_) => {
                "That was more than I can read at once. Please send it in smaller parts.".into()
            }
            Self::Refused(_) => {
                "The language model would not take this message. Please put it another way.".into()
            }
        }
    }

    /// Whether the learner may do well to send the message again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy { .. })
    }

    /// Reads an answer that is not 200.
    pub(crate) fn from_response(status: u16, advice: Advice, body: &[u8]) -> Self {
        let ApiError { kind, message } = serde_json::from_slice::<ErrorBody>(body)
            .map(|body| body.error)
            .unwrap_or_default();
        let message = shortened(&message, status);
        match status {
            402 => Self::BudgetSpent(message),
            429 if kind == "billing_error" => Self::BudgetSpent(message),
            408 | 409 | 429 | 500..=599 => Self::Busy {
                message,
                retry_after: advice.wait(),
            },
            413 => Self::TooLong(message),
            400 if is_too_long(&message) => Self::TooLong(message),
            _ => Self::Refused(message),
        }
    }

    /// Reads an `error` event inside a stream.
    pub(crate) fn from_event(error: &ApiError) -> Self {
        let message = shortened(&error.message, 200);
        match error.kind.as_str() {
            "billing_error" => Self::BudgetSpent(message),
            "invalid_request_error" if is_too_long(&message) => Self::TooLong(message),
            "invalid_request_error" => Self::Refused(message),
            _ => Self::Busy {
                message,
                retry_after: Some(Duration::ZERO),
            },
        }
    }
}

/// What the headers of a refusal say about trying again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Advice {
    /// `x-should-retry`.
    pub(crate) should_retry: Option<bool>,
    /// `retry-after`, where it is a number of seconds.
    pub(crate) retry_after: Option<Duration>,
}

impl Advice {
    fn wait(self) -> Option<Duration> {
        match self.should_retry {
            Some(false) => None,
            Some(true) | None => Some(self.retry_after.unwrap_or_default()),
        }
    }
}

/// The `error` object of the dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiError {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ApiError,
}

fn is_too_long(message: &str) -> bool {
    message.contains("prompt is too long")
}

fn shortened(message: &str, status: u16) -> String {
    if message.trim().is_empty() {
        return format!("status {status} without a reason");
    }
    message.chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, kind: &str, message: &str, advice: Advice) -> Failure {
        let body =
            serde_json::json!({"type": "error", "error": {"type": kind, "message": message}});
        Failure::from_response(status, advice, body.to_string().as_bytes())
    }

    #[test]
    fn a_spent_budget_passes_on_its_own_sentence_and_is_not_tried_again() {
        let advice = Advice {
            should_retry: Some(false),
            retry_after: Some(Duration::from_hours(1)),
        };
        let spent = refusal(429, "billing_error", "Today's budget is spent.", advice);
        assert_eq!(spent.public_message(), "Today's budget is spent.");
        assert_eq!(spent.code(), FailureCode::BudgetExhausted);
        assert_eq!(spent.retry_after(0), None);
        assert!(!spent.is_retryable());
    }

    #[test]
    fn a_short_wait_is_taken_and_a_long_or_forbidden_one_is_not() {
        let wait = |seconds, should_retry| {
            let retry_after = Some(Duration::from_secs(seconds));
            let advice = Advice {
                should_retry,
                retry_after,
            };
            refusal(529, "overloaded_error", "Overloaded", advice).retry_after(0)
        };
        assert_eq!(wait(2, None), Some(Duration::from_secs(2)));
        assert_eq!(wait(90, None), None);
        assert_eq!(wait(2, Some(false)), None);
    }

    #[test]
    fn the_words_of_an_overflow_are_known_and_other_refusals_are_not_taken_for_it() {
        let words = "prompt is too long: 250000 tokens > 200000 maximum";
        let advice = Advice::default();
        assert_eq!(
            refusal(400, "invalid_request_error", words, advice),
            Failure::TooLong(words.into())
        );
        assert_eq!(
            refusal(400, "invalid_request_error", "tools: bad", advice),
            Failure::Refused("tools: bad".into())
        );
        let page = Failure::from_response(502, advice, b"<html>Bad gateway</html>");
        assert!(matches!(page, Failure::Busy { .. }), "{page:?}");
    }
}
