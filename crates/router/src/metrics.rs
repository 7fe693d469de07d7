//! What the router counts. Never a learner in a label.

use carrel_core::NanoUsd;
use carrel_llm::{Dialect, Usage};
use carrel_telemetry::label::{ByKind, ByResult, Word};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum CallResult {
    /// The answer came to its end.
    Ok,
    /// The client left before it.
    ClientLeft,
    /// The provider answered with an error.
    Refused,
    /// The provider broke off, was silent too long or could not be reached.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) dialect: &'static str,
    pub(crate) result: Word,
}

/// The router's counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) requests: Family<CallLabels, Counter>,
    pub(crate) overhead: Histogram,
    pub(crate) time_to_first_token: Histogram,
    tokens: Family<ByKind, Counter>,
    cost: Counter<f64, AtomicU64>,
    pub(crate) budget_refusals: Counter,
    pub(crate) budget_overruns: Counter,
    pub(crate) egress_connections: Family<ByResult, Counter>,
    pub(crate) egress_bytes: Family<ByKind, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            overhead: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            time_to_first_token: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            tokens: Family::default(),
            cost: Counter::default(),
            budget_refusals: Counter::default(),
            budget_overruns: Counter::default(),
            egress_connections: Family::default(),
            egress_bytes: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts them into a registry whose prefix is `carrel`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("model_requests", "Calls to models", self.requests.clone());
        registry.register_with_unit(
            "model_overhead",
            "From a request's arrival to its sending to the provider",
            Unit::Seconds,
            self.overhead.clone(),
        );
        registry.register_with_unit(
            "model_time_to_first_token",
            "From sending to the first content of a streamed answer",
            Unit::Seconds,
            self.time_to_first_token.clone(),
        );
        registry.register(
            "model_tokens",
            "Tokens of settled calls",
            self.tokens.clone(),
        );
        registry.register(
            "model_cost_usd",
            "Cost of settled calls in US dollars",
            self.cost.clone(),
        );
        registry.register(
            "budget_refusals",
            "Calls refused for a budget",
            self.budget_refusals.clone(),
        );
        registry.register(
            "budget_overruns",
            "Settlements above their reservation",
            self.budget_overruns.clone(),
        );
        registry.register(
            "egress_connections",
            "Ways out that agents asked the egress port for",
            self.egress_connections.clone(),
        );
        registry.register(
            "egress_bytes",
            "What went through them",
            self.egress_bytes.clone(),
        );
    }

    pub(crate) fn count(&self, usage: &Usage, cost: NanoUsd) {
        for (kind, tokens) in [
            ("input", usage.input_tokens),
            ("cache_read", usage.cache_read_tokens),
            (
                "cache_write",
                usage.cache_write_tokens
                    + usage.cache_write_long_tokens
                    + usage.cache_write_untold_tokens,
            ),
            ("output", usage.output_tokens),
        ] {
            self.tokens.get_or_create(&ByKind::of(kind)).inc_by(tokens);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum for graphs; the ledger is exact"
        )]
        self.cost.inc_by(cost.0.max(0) as f64 / 1e9);
    }
}

pub(crate) fn dialect_label(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "anthropic",
        Dialect::OpenAiChat => "openai_chat",
    }
}
