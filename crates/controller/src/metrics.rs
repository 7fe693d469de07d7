//! What a controller measures.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use carrel_core::learner::{LearnerState, StartKind};
use carrel_telemetry::label::ByResult;
use carrel_telemetry::wakes::Stage;
use carrel_telemetry::{ApiWrites, Registry, Wakes};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::shared::Shared;

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Round {
    Ok,
}

/// What a controller measures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconcile: Family<ByResult, Histogram>,
    wakes: Wakes,
    pub(crate) writes: ApiWrites,
    census: Arc<Census>,
}

/// `carrel_learners{state,class}`, counted when somebody looks.
#[derive(Default)]
struct Census(OnceLock<Weak<Shared>>);

impl Metrics {
    /// Registers it, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            // 0.1 ms to 6.5 s.
            reconcile: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 17))
            }),
            wakes: Wakes::register(registry),
            writes: ApiWrites::register(registry),
            census: Arc::default(),
        };
        registry.register_collector(Box::new(Arc::clone(&metrics.census)));
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

    pub(crate) fn woke(&self, start_kind: StartKind, stage: Stage, from: Timestamp, to: Timestamp) {
        let took = to.duration_since(from).try_into().unwrap_or_default();
        self.wakes.took(start_kind, stage, took);
    }
}

impl Metrics {
    /// From now on learners are counted.
    pub(crate) fn count(&self, shared: &Arc<Shared>) {
        // Set once, at the start.
        let _ = self.census.0.set(Arc::downgrade(shared));
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Census")
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.get().and_then(Weak::upgrade) else {
            return Ok(());
        };
        let mut counts: HashMap<(LearnerState, String), i64> = HashMap::new();
        for known in shared.world().learners.values() {
            *counts
                .entry((known.status.state, known.class.clone()))
                .or_default() += 1;
        }
        let help = "Learners by state and class";
        let mut family = encoder.encode_descriptor("learners", help, None, MetricType::Gauge)?;
        for ((state, class), count) in counts {
            let labels = [("state", state.to_string()), ("class", class)];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
