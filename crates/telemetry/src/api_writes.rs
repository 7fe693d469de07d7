//! How often the API server of Kubernetes was asked to write: the scarce resource of a wake storm. Controller and gateway count theirs.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::label::Word;

/// What was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Resource {
    /// Learners.
    #[strum(serialize = "learners")]
    Learners,
    /// What is seen of learners.
    #[strum(serialize = "learners/status")]
    LearnersStatus,
    /// Classes.
    #[strum(serialize = "learnerclasses")]
    LearnerClasses,
    /// Pods.
    #[strum(serialize = "pods")]
    Pods,
    /// The leader's lease.
    #[strum(serialize = "leases")]
    Leases,
    /// Events.
    #[strum(serialize = "events")]
    Events,
}

/// How, in the words of the API server's audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Verb {
    /// A new object.
    Create,
    /// A part of one, server-side apply included.
    Patch,
    /// All of one.
    Update,
    /// Its end.
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    resource: Word,
    verb: Word,
}

/// How often the API server was asked to write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiWrites(Family<Labels, Counter>);

impl ApiWrites {
    /// Registers it, in a registry whose names begin with `carrel_`.
    pub fn register(registry: &mut Registry) -> Self {
        let writes = Self(Family::default());
        registry.register(
            "api_writes",
            "Writes that the API server was asked for",
            writes.0.clone(),
        );
        writes
    }

    /// A write is asked for.
    pub fn asked(&self, resource: Resource, verb: Verb) {
        self.0.get_or_create(&labels(resource, verb)).inc();
    }

    /// How often that was asked for.
    pub fn count(&self, resource: Resource, verb: Verb) -> u64 {
        self.0.get_or_create(&labels(resource, verb)).get()
    }
}

fn labels(resource: Resource, verb: Verb) -> Labels {
    Labels {
        resource: Word::of(resource),
        verb: Word::of(verb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_resource_and_verb_in_the_audit_logs_words() {
        let mut registry = crate::registry("1.2.3");
        let writes = ApiWrites::register(&mut registry);
        writes.asked(Resource::LearnersStatus, Verb::Patch);
        writes.asked(Resource::LearnersStatus, Verb::Patch);
        writes.asked(Resource::Pods, Verb::Create);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for line in [
            "carrel_api_writes_total{resource=\"learners/status\",verb=\"patch\"} 2",
            "carrel_api_writes_total{resource=\"pods\",verb=\"create\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
