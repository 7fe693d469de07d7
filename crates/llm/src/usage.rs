//! What a call used, in one convention for every dialect: the four kinds of input are apart and add up to the prompt.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Input that no cache held.
    pub input_tokens: u64,
    /// Input read from a cache.
    pub cache_read_tokens: u64,
    /// Input written to a cache for minutes.
    pub cache_write_tokens: u64,
    /// Input written to a cache for an hour or longer.
    pub cache_write_long_tokens: u64,
    /// Output, thinking included.
    pub output_tokens: u64,
    /// Searches that the provider ran for the model.
    pub web_searches: u64,
}

impl Usage {
    /// The whole prompt.
    pub fn prompt_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_write_tokens)
            .saturating_add(self.cache_write_long_tokens)
    }

    /// From Anthropic's `usage`, whose `input_tokens` excludes what a cache held.
    pub fn from_anthropic(usage: &Value) -> Self {
        let plain = Self::from_anthropic_fields(usage);
        // With server-side compaction the top level leaves out the compaction's own pass.
        let passes = usage["iterations"].as_array().into_iter().flatten();
        let sum = passes
            .map(Self::from_anthropic_fields)
            .fold(Self::default(), Self::plus);
        plain.max(sum)
    }

    fn from_anthropic_fields(usage: &Value) -> Self {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let written = count(&usage["cache_creation_input_tokens"]);
        // Where the kinds are not told apart, all of it may be of the dearer one.
        let kinds = usage["cache_creation"].as_object();
        let long = kinds.map_or(written, |kinds| {
            count(
                kinds
                    .get("ephemeral_1h_input_tokens")
                    .unwrap_or(&Value::Null),
            )
        });
        Self {
            input_tokens: count(&usage["input_tokens"]),
            cache_read_tokens: count(&usage["cache_read_input_tokens"]),
            cache_write_tokens: written.saturating_sub(long),
            cache_write_long_tokens: long,
            output_tokens: count(&usage["output_tokens"]),
            web_searches: count(&usage["server_tool_use"]["web_search_requests"]),
        }
    }

    /// From OpenAI's `usage`, whose `prompt_tokens` includes what a cache held.
    pub fn from_openai(usage: &Value) -> Self {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let details = &usage["prompt_tokens_details"];
        let (read, written) = (
            count(&details["cached_tokens"]),
            count(&details["cache_write_tokens"]),
        );
        Self {
            input_tokens: count(&usage["prompt_tokens"])
                .saturating_sub(read)
                .saturating_sub(written),
            cache_read_tokens: read,
            cache_write_tokens: written,
            cache_write_long_tokens: 0,
            output_tokens: count(&usage["completion_tokens"]),
            web_searches: 0,
        }
    }

    fn each(self, other: Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            input_tokens: combine(self.input_tokens, other.input_tokens),
            cache_read_tokens: combine(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: combine(self.cache_write_tokens, other.cache_write_tokens),
            cache_write_long_tokens: combine(
                self.cache_write_long_tokens,
                other.cache_write_long_tokens,
            ),
            output_tokens: combine(self.output_tokens, other.output_tokens),
            web_searches: combine(self.web_searches, other.web_searches),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    fn max(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    /// What a later report of a running count says: its numbers win where it has any.
    pub(crate) fn updated(self, later: Self) -> Self {
        self.each(later, |before, now| if now > 0 { now } else { before })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_to_a_cache_without_telling_how_is_of_the_dearer_kind() {
        let written = |usage: &Value| {
            let usage = Usage::from_anthropic(usage);
            (usage.cache_write_tokens, usage.cache_write_long_tokens)
        };
        let mut usage = json!({"input_tokens": 1, "cache_creation_input_tokens": 30});
        assert_eq!(written(&usage), (0, 30));
        usage["cache_creation"] = json!({"ephemeral_5m_input_tokens": 30});
        assert_eq!(written(&usage), (30, 0));
        usage["cache_creation"] = json!({"ephemeral_1h_input_tokens": 10});
        assert_eq!(written(&usage), (20, 10));
    }
}
