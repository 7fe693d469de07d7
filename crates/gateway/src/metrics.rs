//! What the gateway measures.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use carrel_core::learner::StartKind;
use carrel_core::turn::TurnState;
use carrel_telemetry::label::{ByResult, Word};
use carrel_telemetry::wakes::Stage;
use carrel_telemetry::{Snapshots, Wakes};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::census::Census;

const TURN_SECONDS: [f64; 11] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1200.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WakeLabels {
    start_kind: Word,
    result: Word,
}

/// What came of a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum WakeResult {
    /// An incarnation that took the turn.
    Ready,
    /// One that ended before it was ready.
    Died,
    /// None: no pod could be made for one.
    GivenUp,
}

/// What the gateway measures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) census: Census,
    wakes: Family<WakeLabels, Counter>,
    wake_duration: Wakes,
    snapshots: Snapshots,
    turn_duration: Family<ByResult, Histogram>,
    waiting: Gauge,
    oldest: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers what the gateway alone measures, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry, wakes: Wakes, snapshots: Snapshots) -> Self {
        let metrics = Self {
            census: Census::default(),
            wakes: Family::default(),
            wake_duration: wakes,
            snapshots,
            turn_duration: Family::new_with_constructor(|| Histogram::new(TURN_SECONDS)),
            waiting: Gauge::default(),
            oldest: Gauge::default(),
        };
        registry.register_collector(Box::new(metrics.census.clone()));
        registry.register(
            "wakes",
            "Incarnations that turns waited for",
            metrics.wakes.clone(),
        );
        registry.register(
            "turn_duration_seconds",
            "From a message's acceptance to its outcome",
            metrics.turn_duration.clone(),
        );
        registry.register(
            "turns_waiting",
            "Turns that wait or run",
            metrics.waiting.clone(),
        );
        registry.register(
            "oldest_message_age_seconds",
            "Age of the oldest message without an outcome",
            metrics.oldest.clone(),
        );
        metrics
    }

    pub(crate) fn woke(&self, start_kind: StartKind, result: WakeResult) {
        let labels = WakeLabels {
            start_kind: Word::of(start_kind),
            result: Word::of(result),
        };
        self.wakes.get_or_create(&labels).inc();
    }

    pub(crate) fn wake_took(&self, start_kind: StartKind, stage: Stage, took: Duration) {
        self.wake_duration.took(start_kind, stage, took);
    }

    pub(crate) fn snapshot_failed(&self, took: Duration) {
        self.snapshots.failed(took);
    }

    pub(crate) fn turn_took(&self, state: TurnState, took: Duration) {
        let labels = ByResult::of(state);
        let histogram = self.turn_duration.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    pub(crate) fn backlog(&self, waiting: u64, oldest: Duration) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.oldest.set(oldest.as_secs_f64());
    }
}
