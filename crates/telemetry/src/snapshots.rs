//! What is measured of snapshots: by the vault when it commits one, answers a call or falls back, by the gateway when a turn fails for
//! want of one.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::label::{ByKind, ByResult};

/// What is measured of snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    duration: Family<ByResult, Histogram>,
    bytes: Family<ByKind, Histogram>,
    calls: Family<ByResult, Counter>,
    fall_backs: Counter,
}

impl Snapshots {
    /// Registers it, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry) -> Self {
        let snapshots = Self::default();
        registry.register(
            "snapshot_duration_seconds",
            "From the beginning of a snapshot to the call that commits it",
            snapshots.duration.clone(),
        );
        registry.register(
            "snapshot_bytes",
            "What a committed snapshot added to its repository, and what it holds",
            snapshots.bytes.clone(),
        );
        registry.register("vault_calls", "Calls to the vault", snapshots.calls.clone());
        registry.register(
            "fall_backs",
            "Learners whose newest snapshot was destroyed, and who went on from an older one",
            snapshots.fall_backs.clone(),
        );
        snapshots
    }

    /// One was committed.
    pub fn committed(&self, took: Duration, new_bytes: u64, total_bytes: u64) {
        self.took("ok", took);
        for (kind, bytes) in [("new", new_bytes), ("total", total_bytes)] {
            #[expect(clippy::cast_precision_loss, reason = "it falls into a bucket")]
            self.bytes
                .get_or_create(&ByKind::of(kind))
                .observe(bytes as f64);
        }
    }

    /// One could not be taken, or was refused.
    pub fn failed(&self, took: Duration) {
        self.took("failed", took);
    }

    /// The vault answered a call with this HTTP status.
    pub fn answered(&self, status: u16) {
        let result = match status {
            500.. => "failed",
            400..500 => "refused",
            _ => "ok",
        };
        self.calls.get_or_create(&ByResult::of(result)).inc();
    }

    /// A learner's newest snapshot was proved destroyed, and an older one took its place.
    pub fn fell_back(&self) {
        self.fall_backs.inc();
    }

    fn took(&self, result: &'static str, took: Duration) {
        let histogram = self.duration.get_or_create(&ByResult::of(result));
        histogram.observe(took.as_secs_f64());
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        // 8 ms to a minute, 1 KiB to 1 GiB.
        Self {
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.008, 2.0, 14))
            }),
            bytes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1024.0, 4.0, 11))
            }),
            calls: Family::default(),
            fall_backs: Counter::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn answers_count_by_whose_fault_they_are_and_fall_backs_by_themselves() {
        let mut registry = Registry::with_prefix("carrel");
        let snapshots = Snapshots::register(&mut registry);
        for status in [200, 204, 409, 500, 503, 503] {
            snapshots.answered(status);
        }
        snapshots.fell_back();
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "carrel_vault_calls_total{result=\"ok\"} 2",
            "carrel_vault_calls_total{result=\"refused\"} 1",
            "carrel_vault_calls_total{result=\"failed\"} 3",
            "carrel_fall_backs_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
