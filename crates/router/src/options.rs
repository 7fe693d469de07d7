//! What an operator decides: providers, routes, prices, who may call, how long to wait. Validated by the configuration;
//! replaced as a whole by [`Service::replace`](crate::Service::replace).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use carrel_llm::{Dialect, PriceTable};
use rand::seq::IndexedRandom as _;
use secrecy::SecretString;

/// The name of the built-in stand-in provider; no configured one may take it.
pub(crate) const DEMO: &str = "demo";

/// What the router is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where models are. One name may stand twice, once for each dialect it speaks.
    pub providers: Vec<Provider>,
    /// The operator's routes.
    pub routes: Routes,
    /// Prices, the operator's overlay over the vendored table.
    pub prices: PriceTable,
    /// Who may call beside learners.
    pub callers: Callers,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The most bytes of a request's body.
    pub max_body_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            routes: Routes::default(),
            prices: PriceTable::vendored(),
            callers: Callers::default(),
            timeouts: Timeouts::default(),
            max_body_bytes: 32 << 20,
        }
    }
}

/// A place that serves models in one dialect.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The first part of `provider/model`.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Anthropic: up to, without, `/v1`. OpenAI: up to and with `/v1`.
    pub base_url: String,
    /// Keys; each call takes one of them by chance. None: nobody is billed there.
    pub keys: Vec<SecretString>,
}

impl Provider {
    /// Whether this is a maker of models itself, not somebody who passes its answers on.
    pub(crate) fn is_maker(&self) -> bool {
        let host = self.base_url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default();
        [".anthropic.com", ".openai.com"]
            .iter()
            .any(|domain| host.ends_with(domain))
    }

    /// The key for one call.
    pub(crate) fn key(&self) -> Option<&SecretString> {
        self.keys.choose(&mut rand::rng())
    }
}

/// Route names, each with its targets in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(pub BTreeMap<String, Vec<Target>>);

/// A model of a provider, written `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The provider's name.
    pub provider: String,
    /// The provider's own name of the model; may have slashes.
    pub model: String,
}

/// A text that is not `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be 'provider/model'")]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => Ok(Self {
                provider: provider.to_owned(),
                model: model.to_owned(),
            }),
            _ => Err(TargetError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// Who may call beside learners.
#[derive(Debug, Clone, Default)]
pub struct Callers {
    /// Keys of programs at a desk: no budget.
    pub keys: Vec<SecretString>,
    /// Whether callers on loopback need no key at all.
    pub open_on_loopback: bool,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To reach a provider.
    pub connect: Duration,
    /// From the request to the first byte of a streamed answer.
    pub first_byte: Duration,
    /// From the request to the first byte of an answer that comes whole.
    pub whole_answer: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Silence after which a stream gets a ping.
    pub ping: Duration,
    /// How long an answer is read on after its client left, to learn what it cost.
    pub drain: Duration,
    /// One call altogether; a reservation older than twice this is an orphan.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(25),
            whole_answer: Duration::from_mins(10),
            idle: Duration::from_mins(2),
            ping: Duration::from_secs(10),
            drain: Duration::from_mins(1),
            call: Duration::from_mins(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_of_models_is_known_by_its_host_and_not_by_what_else_an_address_has() {
        let is_maker = |base_url: &str| {
            let provider = Provider {
                name: "one".to_owned(),
                dialect: Dialect::Anthropic,
                base_url: base_url.to_owned(),
                keys: Vec::new(),
            };
            provider.is_maker()
        };
        assert!(is_maker("https://api.anthropic.com"));
        assert!(is_maker("https://eu.api.openai.com:443/v1"));
        for other in [
            "https://openrouter.ai/api",
            "https://proxy.example.org/api.anthropic.com",
            "https://api.anthropic.com.example.org",
            "http://127.0.0.1:8000/v1",
            "api.anthropic.com",
        ] {
            assert!(!is_maker(other), "{other}");
        }
    }
}
