//! What is measured of snapshots: by the vault when it commits one, by the gateway when a turn fails for want of one.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::label::{ByKind, ByResult};

/// What is measured of snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    duration: Family<ByResult, Histogram>,
    bytes: Family<ByKind, Histogram>,
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
        }
    }
}
