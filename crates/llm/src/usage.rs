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
    /// Input written to a cache for a time that the report does not tell.
    pub cache_write_untold_tokens: u64,
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
            .saturating_add(self.cache_write_untold_tokens)
    }

    /// With a time for what was written to a cache for an untold one: the longest that the request asked for.
    pub fn told(mut self, long_cache: bool) -> Self {
        let untold = std::mem::take(&mut self.cache_write_untold_tokens);
        let kind = if long_cache {
            &mut self.cache_write_long_tokens
        } else {
            &mut self.cache_write_tokens
        };
        *kind = kind.saturating_add(untold);
        self
    }

    /// From Anthropic's `usage`, whose `input_tokens` excludes what a cache held.
    pub fn from_anthropic(usage: &Value) -> Self {
        let plain = Self::from_anthropic_fields(usage);
        // With server-side compaction the top level leaves out the compaction's own pass.
        let passes = usage["iterations"].as_array().into_iter().flatten();
        let sum = passes
            .map(Self::from_anthropic_fields)
            .fold(Self::default(), Self::plus);
        plain.with_kinds_of(sum).max(sum.with_kinds_of(plain))
    }

    fn from_anthropic_fields(usage: &Value) -> Self {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let written = count(&usage["cache_creation_input_tokens"]);
        let kinds = &usage["cache_creation"];
        let (short, long) = (
            count(&kinds["ephemeral_5m_input_tokens"]),
            count(&kinds["ephemeral_1h_input_tokens"]),
        );
        Self {
            input_tokens: count(&usage["input_tokens"]),
            cache_read_tokens: count(&usage["cache_read_input_tokens"]),
            cache_write_tokens: short,
            cache_write_long_tokens: long,
            cache_write_untold_tokens: written.saturating_sub(short).saturating_sub(long),
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
            cache_write_tokens: 0,
            cache_write_long_tokens: 0,
            cache_write_untold_tokens: written,
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
            cache_write_untold_tokens: combine(
                self.cache_write_untold_tokens,
                other.cache_write_untold_tokens,
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
        let later = later.with_kinds_of(self);
        let newest = self.each(later, |before, now| if now > 0 { now } else { before });
        let written = if later.kinds() == (0, 0, 0) {
            self
        } else {
            later
        };
        Self {
            cache_write_tokens: written.cache_write_tokens,
            cache_write_long_tokens: written.cache_write_long_tokens,
            cache_write_untold_tokens: written.cache_write_untold_tokens,
            ..newest
        }
    }

    /// A report may repeat without its kinds what another told with them: those hold, and only what is above them is of
    /// an untold kind.
    fn with_kinds_of(self, other: Self) -> Self {
        match (self.kinds(), other.kinds()) {
            ((0, 0, untold), (short, long, _)) if untold > 0 => Self {
                cache_write_tokens: short,
                cache_write_long_tokens: long,
                cache_write_untold_tokens: untold.saturating_sub(short).saturating_sub(long),
                ..self
            },
            _ => self,
        }
    }

    fn kinds(&self) -> (u64, u64, u64) {
        (
            self.cache_write_tokens,
            self.cache_write_long_tokens,
            self.cache_write_untold_tokens,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_to_a_cache_without_telling_how_is_of_an_untold_kind() {
        let written = |usage: &Value| Usage::from_anthropic(usage).kinds();
        let mut usage = json!({"input_tokens": 1, "cache_creation_input_tokens": 30});
        assert_eq!(written(&usage), (0, 0, 30));
        usage["cache_creation"] = json!({"ephemeral_5m_input_tokens": 30});
        assert_eq!(written(&usage), (30, 0, 0));
        usage["cache_creation"] = json!({"ephemeral_1h_input_tokens": 10});
        assert_eq!(written(&usage), (0, 10, 20));
        let untold = Usage::from_anthropic(&usage);
        assert_eq!(untold.told(true).kinds(), (0, 30, 0));
        assert_eq!(untold.told(false).kinds(), (20, 10, 0));
        let openai =
            json!({"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 4}});
        assert_eq!(Usage::from_openai(&openai).kinds(), (0, 0, 4));
    }

    #[test]
    fn what_is_told_again_without_its_kind_is_not_counted_twice() {
        let start = json!({"input_tokens": 1, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 30}});
        let later = |written: u64| json!({"cache_creation_input_tokens": written});
        let start = Usage::from_anthropic(&start);
        let updated = |written| {
            start
                .updated(Usage::from_anthropic(&later(written)))
                .kinds()
        };
        assert_eq!(updated(0), (30, 0, 0));
        assert_eq!(updated(30), (30, 0, 0));
        assert_eq!(updated(70), (30, 0, 40));
        let untold = Usage::from_anthropic(&later(30));
        assert_eq!(untold.updated(start).kinds(), (30, 0, 0));
    }
}
