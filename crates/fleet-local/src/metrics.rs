//! What the fleet measures: its rounds over learners, and its part of each wake.

use std::time::Duration;

use carrel_core::learner::StartKind;
use carrel_telemetry::label::ByResult;
use carrel_telemetry::wakes::Stage;
use carrel_telemetry::{Registry, Wakes};
use jiff::Timestamp;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Round {
    Ok,
    /// The store did not answer.
    Failed,
}

/// What the fleet measures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconcile: Family<ByResult, Histogram>,
    wakes: Wakes,
}

impl Metrics {
    /// Registers what the fleet alone measures, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry, wakes: Wakes) -> Self {
        // 1 ms to 16 s.
        let metrics = Self {
            reconcile: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            wakes,
        };
        registry.register(
            "reconcile_duration_seconds",
            "One look at a learner with what was done about it",
            metrics.reconcile.clone(),
        );
        metrics
    }

    pub(crate) fn round(&self, result: Round, took: Duration) {
        let histogram = self.reconcile.get_or_create(&ByResult::of(result));
        histogram.observe(took.as_secs_f64());
    }

    /// A stage of a wake. Without a pool of warm pods every start is cold.
    pub(crate) fn woke(&self, stage: Stage, from: Timestamp, to: Timestamp) {
        let took = to.duration_since(from).try_into().unwrap_or_default();
        self.wakes.took(StartKind::Cold, stage, took);
    }
}
