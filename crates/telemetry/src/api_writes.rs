//! How often a role writes to the Kubernetes API server, whose writes are the scarce resource of many wakes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::label::Word;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    resource: Word,
    verb: Word,
}

/// Counts writes by resource (`pods`, `learners/status`) and verb, as an API server's audit log names them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiWrites(Family<Labels, Counter>);

impl ApiWrites {
    /// Registers it, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry) -> Self {
        let writes = Self(Family::default());
        registry.register(
            "api_writes",
            "Writes to the Kubernetes API server, refused ones too",
            writes.0.clone(),
        );
        writes
    }

    /// One is sent.
    pub fn count(&self, resource: &'static str, verb: &'static str) {
        let labels = Labels {
            resource: Word::of(resource),
            verb: Word::of(verb),
        };
        self.0.get_or_create(&labels).inc();
    }
}
