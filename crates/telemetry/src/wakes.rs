//! How long waking takes, by stage: the fleet measures what it does (`schedule`, `assign`), the gateway the rest.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::label::Word;

/// From a live start to a slow restore.
const SECONDS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.7, 1.5, 3.0, 10.0, 30.0, 120.0,
];

/// A part of a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// From a message's acceptance until its turn is claimed.
    Queue,
    /// From the wish for an incarnation until its pod is there.
    Schedule,
    /// Until the pod has taken its assignment.
    Assign,
    /// First contact with the vault, and the workspace.
    Restore,
    /// Until the agent is ready.
    Agent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    start_kind: Word,
    stage: Word,
}

/// How long waking takes, by stage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wakes(Family<Labels, Histogram>);

impl Wakes {
    /// Registers it, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry) -> Self {
        let wakes = Self(Family::new_with_constructor(|| Histogram::new(SECONDS)));
        registry.register(
            "wake_duration_seconds",
            "How long waking took, by stage",
            wakes.0.clone(),
        );
        wakes
    }

    /// A stage of a wake took so long.
    pub fn took(&self, start_kind: impl Into<&'static str>, stage: Stage, took: Duration) {
        let labels = Labels {
            start_kind: Word::of(start_kind),
            stage: Word::of(stage),
        };
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
