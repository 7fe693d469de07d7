//! Prices in integer nano-USD: the vendored table, an operator's overlay, and what a usage costs.

use std::collections::BTreeMap;

use carrel_core::NanoUsd;
use serde::{Deserialize, Serialize};

use crate::estimate::Bound;
use crate::usage::Usage;

const VENDORED: &str = include_str!("../data/prices.json");
/// One search of a provider's own: 10 USD a thousand, at Anthropic as at OpenAI.
const WEB_SEARCH: NanoUsd = NanoUsd(10_000_000);

/// What one token of each kind costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input, in nano-USD a token.
    pub input: NanoUsd,
    /// Output, in nano-USD a token.
    pub output: NanoUsd,
    /// Input from a cache; absent: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<NanoUsd>,
    /// Input into a cache; absent: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<NanoUsd>,
    /// Input into a cache for an hour or longer; absent: as `cache_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_long: Option<NanoUsd>,
    /// What holds for the whole call when its prompt is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongPrompt>,
    /// The most tokens of one answer; absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
    /// Whether it thinks when nobody says whether it should, which in OpenAI's dialect leaves no sign.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub thinks_unasked: bool,
}

/// The prices of a call whose prompt is longer than `over` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongPrompt {
    /// The tokens of prompt above which these hold.
    pub over: u64,
    /// Input.
    pub input: NanoUsd,
    /// Output.
    pub output: NanoUsd,
    /// Input from a cache; absent: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<NanoUsd>,
    /// Input into a cache; absent: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<NanoUsd>,
}

impl Price {
    /// A model that nobody is billed for.
    pub const FREE: Self = Self {
        input: NanoUsd::ZERO,
        output: NanoUsd::ZERO,
        cache_read: None,
        cache_write: None,
        cache_write_long: None,
        long: None,
        max_output: None,
        thinks_unasked: false,
    };

    /// Whether every call costs nothing.
    pub fn is_free(&self) -> bool {
        let Resolved {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_long,
        } = self.at(0);
        let prices = [input, output, cache_read, cache_write, cache_write_long];
        prices.iter().all(|price| *price == NanoUsd::ZERO) && self.long.is_none()
    }

    /// What a usage costs.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let at = self.at(usage.prompt_tokens());
        let searches = if self.is_free() {
            0
        } else {
            usage.web_searches
        };
        [
            at.input.times(usage.input_tokens),
            at.cache_read.times(usage.cache_read_tokens),
            at.cache_write.times(usage.cache_write_tokens),
            at.cache_write_long.times(usage.cache_write_long_tokens),
            // Of an untold kind, at the dearest: `Usage::told` tells it where the request is known.
            at.cache_write
                .max(at.cache_write_long)
                .times(usage.cache_write_untold_tokens),
            at.output.times(usage.output_tokens),
            WEB_SEARCH.times(searches),
        ]
        .into_iter()
        .sum()
    }

    /// The most that a request's input may cost, and one token of its output: every token of input at the dearest
    /// kind that the request can cause.
    pub fn worst(&self, bound: &Bound) -> (NanoUsd, NanoUsd) {
        let at = self.at(bound.input_tokens);
        let mut dearest = at.input.max(at.cache_read).max(at.cache_write);
        if bound.long_cache {
            dearest = dearest.max(at.cache_write_long);
        }
        let searches = if self.is_free() {
            0
        } else {
            bound.web_searches
        };
        let input = dearest.times(bound.input_tokens);
        // What the model wrote before a use of a provider's tool is read again after it.
        let output = at.output.plus(dearest.times(bound.rereads));
        (input.plus(WEB_SEARCH.times(searches)), output)
    }

    fn at(&self, prompt_tokens: u64) -> Resolved {
        match self.long {
            Some(long) if prompt_tokens > long.over => {
                let written = long.cache_write.unwrap_or(long.input);
                Resolved {
                    input: long.input,
                    output: long.output,
                    cache_read: long.cache_read.unwrap_or(long.input),
                    cache_write: written,
                    // Double the short one's price, as everywhere in the table.
                    cache_write_long: written.times(2),
                }
            }
            _ => {
                let written = self.cache_write.unwrap_or(self.input);
                Resolved {
                    input: self.input,
                    output: self.output,
                    cache_read: self.cache_read.unwrap_or(self.input),
                    cache_write: written,
                    cache_write_long: self.cache_write_long.unwrap_or(written),
                }
            }
        }
    }
}

/// The prices that hold for one call.
struct Resolved {
    input: NanoUsd,
    output: NanoUsd,
    cache_read: NanoUsd,
    cache_write: NanoUsd,
    cache_write_long: NanoUsd,
}

/// Prices by model: `provider/model`, or the model's name alone for any provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// What is recorded with each charge.
    pub version: String,
    /// Where the prices come from.
    #[serde(default)]
    pub source: String,
    models: BTreeMap<String, Price>,
}

/// A price table that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading a price table")]
pub struct Error(#[from] serde_json::Error);

impl PriceTable {
    /// The table that ships with Carrel.
    pub fn vendored() -> Self {
        Self::parse(VENDORED).expect("the vendored table is checked by a test")
    }

    /// Reads a table from JSON.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: Self = serde_json::from_str(text)?;
        let models = table.models.into_iter();
        Ok(Self {
            models: models.map(|(name, price)| (key(&name), price)).collect(),
            ..table
        })
    }

    /// This table with an operator's prices over it; the version names both.
    pub fn overlaid(mut self, overlay: Self) -> Self {
        self.version = format!("{}+{}", self.version, overlay.version);
        let models = overlay.models.into_iter();
        self.models
            .extend(models.map(|(name, price)| (key(&name), price)));
        self
    }

    /// The price of a provider's model: under both names, else under the model's last name alone (a reseller charges
    /// what the vendor charges unless the overlay says otherwise).
    pub fn price(&self, provider: &str, model: &str) -> Option<Price> {
        let own = key(&format!("{provider}/{model}"));
        let bare = own.rsplit('/').next().unwrap_or(&own);
        self.models
            .get(&own)
            .or_else(|| self.models.get(bare))
            .copied()
    }
}

/// Names are compared without case, date and the difference between `4.5` and `4-5`.
fn key(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace('.', "-");
    let is_date = |text: &str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        digits == 8 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    };
    for length in [9, 11] {
        let cut = name.len().saturating_sub(length);
        if let Some((head, tail)) = name.split_at_checked(cut)
            && let Some(date) = tail.strip_prefix('-')
            && is_date(date)
            && !head.is_empty()
        {
            return head.to_owned();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_vendored_table_is_valid_and_knows_the_models_that_matter() {
        let table = PriceTable::vendored();
        assert!(!table.version.is_empty() && !table.source.is_empty());
        for (provider, model, input, output) in [
            ("anthropic", "claude-sonnet-4-5", 3_000, 15_000),
            ("anthropic", "claude-sonnet-4-5-20250929", 3_000, 15_000),
            ("openrouter", "anthropic/claude-sonnet-4.5", 3_000, 15_000),
            ("openai", "gpt-5-mini-2025-08-07", 250, 2_000),
            ("openai", "GPT-4.1", 2_000, 8_000),
        ] {
            let price = table.price(provider, model).expect(model);
            assert_eq!(
                (price.input, price.output),
                (NanoUsd(input), NanoUsd(output))
            );
        }
        let thinks = |model| table.price("openai", model).unwrap().thinks_unasked;
        assert!(thinks("gpt-5-mini") && thinks("o3") && !thinks("gpt-4.1"));
        assert_eq!(table.price("local", "llama3.2:3b"), None);
    }

    #[test]
    fn each_kind_of_token_has_its_own_price() {
        let price = PriceTable::vendored()
            .price("anthropic", "claude-sonnet-4-5")
            .unwrap();
        let usage = Usage {
            input_tokens: 1,
            cache_read_tokens: 20,
            cache_write_tokens: 300,
            cache_write_long_tokens: 4_000,
            cache_write_untold_tokens: 0,
            output_tokens: 50_000,
            web_searches: 2,
        };
        let expected =
            3_000 + 20 * 300 + 300 * 3_750 + 4_000 * 6_000 + 50_000 * 15_000 + 20_000_000;
        assert_eq!(price.cost(&usage), NanoUsd(expected));
    }

    #[test]
    fn a_long_prompt_changes_the_price_of_the_whole_call() {
        let price = PriceTable::vendored().price("openai", "gpt-5.4").unwrap();
        let usage = |input_tokens| Usage {
            input_tokens,
            output_tokens: 10,
            ..Usage::default()
        };
        assert_eq!(
            price.cost(&usage(272_000)),
            NanoUsd(272_000 * 2_500 + 10 * 15_000)
        );
        assert_eq!(
            price.cost(&usage(272_001)),
            NanoUsd(272_001 * 5_000 + 10 * 22_500)
        );
        let price = PriceTable::vendored()
            .price("anthropic", "claude-haiku-5-5")
            .unwrap();
        assert_eq!(
            price.cost(&usage(100_001)),
            NanoUsd(100_001 * 500 + 10 * 2_500)
        );
    }

    #[test]
    fn the_chart_takes_whatever_a_price_says() {
        let cost = NanoUsd(1);
        let long = LongPrompt {
            over: 1,
            input: cost,
            output: cost,
            cache_read: Some(cost),
            cache_write: Some(cost),
        };
        let whole = Price {
            input: cost,
            output: cost,
            cache_read: Some(cost),
            cache_write: Some(cost),
            cache_write_long: Some(cost),
            long: Some(long),
            max_output: Some(1),
            thinks_unasked: true,
        };
        let whole = serde_json::to_value(whole).unwrap();
        let schema = include_str!("../../../helm/carrel/values.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let model = "/properties/config/properties/prices/properties/models/additionalProperties/properties";
        let model = schema.pointer(model).unwrap();
        let names = |fields: &serde_json::Value| -> BTreeSet<String> {
            fields.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(model), names(&whole));
        assert_eq!(names(&model["long"]["properties"]), names(&whole["long"]));
    }

    #[test]
    fn an_overlay_wins_and_names_one_providers_model() {
        let overlay =
            r#"{"version": "ours", "models": {"mirror/GPT-5": {"input": 7, "output": 9}}}"#;
        let table = PriceTable::vendored().overlaid(PriceTable::parse(overlay).unwrap());
        assert_eq!(table.price("mirror", "gpt-5").unwrap().output, NanoUsd(9));
        assert_eq!(
            table.price("openai", "gpt-5").unwrap().output,
            NanoUsd(10_000)
        );
        assert!(table.version.ends_with("+ours"));
        assert!(PriceTable::parse(r#"{"version": "x", "models": {"m": {"input": 1}}}"#).is_err());
    }
}
