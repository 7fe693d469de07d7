//! What a controller measures.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use carrel_core::learner::{ConditionStatus, LearnerState, StartKind};
use carrel_core::lifecycle::names;
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

use crate::learner::{Ended, Trouble};
use crate::shared::Shared;
use crate::world::{Known, World};

/// What a controller measures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconcile: Family<ByResult, Histogram>,
    wakes: Wakes,
    pub(crate) writes: ApiWrites,
    census: Arc<Census>,
}

/// What is seen, counted when somebody looks: learners, those whose data are at risk, those who wait for a place, pools, and whether this
/// controller leads.
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
            "One look at a learner with what was done about it: ok, requeue (it is looked at again at a time), conflict, error",
            metrics.reconcile.clone(),
        );
        metrics
    }

    pub(crate) fn round(&self, ended: &Ended, took: Duration) {
        let result = match ended {
            Ok(None) => "ok",
            Ok(Some(_)) => "requeue",
            Err(Trouble::Conflict) => "conflict",
            Err(Trouble::Sidecar | Trouble::Server | Trouble::Restless) => "error",
        };
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
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.get().and_then(Weak::upgrade) else {
            return Ok(());
        };
        let leads = shared.is_leader();
        encode(encoder, &shared.world(), leads)
    }
}

fn encode(mut encoder: DescriptorEncoder<'_>, world: &World, leads: bool) -> fmt::Result {
    let mut counts: HashMap<(LearnerState, &str), i64> = HashMap::new();
    for known in world.learners.values() {
        *counts
            .entry((known.status.state, &known.class))
            .or_default() += 1;
    }
    let help = "Learners by state and class";
    let mut family = encoder.encode_descriptor("learners", help, None, MetricType::Gauge)?;
    for ((state, class), count) in counts {
        let labels = [("state", state.into()), ("class", class)];
        ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
    }

    let at_risk = world.learners.values().filter(|known| is_at_risk(known));
    let help = "Learners whose last incarnation ended without its last snapshot";
    let one = encoder.encode_descriptor("learners_at_risk", help, None, MetricType::Gauge)?;
    ConstGauge::new(number(at_risk.count())).encode(one)?;

    let help = "Learners who are asked for and wait for a place to start in";
    let one = encoder.encode_descriptor("wakes_waiting", help, None, MetricType::Gauge)?;
    ConstGauge::new(number(world.gate.waiting())).encode(one)?;

    let help =
        "Blank pods of a class, by what they are: ready, starting, or wanted of both together";
    let mut family = encoder.encode_descriptor("pool_pods", help, None, MetricType::Gauge)?;
    for class in world.classes.values() {
        let blanks = world.pods.blanks(&class.hash);
        let ready = blanks.map_or(0, |blanks| blanks.ready.len());
        let starting = blanks.map_or(0, |blanks| blanks.starting.len());
        let wanted = class.spec.warm_pool.size as usize;
        for (kind, pods) in [("ready", ready), ("starting", starting), ("wanted", wanted)] {
            let labels = [("class", class.name.as_str()), ("kind", kind)];
            ConstGauge::new(number(pods)).encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Whether this controller acts: 1 with the one that holds the lease";
    let one = encoder.encode_descriptor("leader", help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::from(leads)).encode(one)
}

fn is_at_risk(known: &Known) -> bool {
    let condition = known.status.condition(names::DATA_AT_RISK);
    condition.is_some_and(|condition| condition.status == ConditionStatus::True)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_core::class::ClassSpec;
    use carrel_core::learner::{Condition, Desired, Status};
    use carrel_crd::Beside;
    use prometheus_client::encoding::text::encode as encode_text;

    use crate::gate::{Budget, Gate};
    use crate::world::Class;

    #[derive(Debug)]
    struct Shown(World, bool);

    impl Collector for Shown {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(encoder, &self.0, self.1)
        }
    }

    fn known(state: LearnerState, at_risk: ConditionStatus) -> Known {
        let condition = Condition {
            name: names::DATA_AT_RISK.to_owned(),
            status: at_risk,
            reason: names::DIED_UNSAVED.to_owned(),
            message: String::new(),
            last_transition_time: Timestamp::from_second(1_783_591_200).unwrap(),
        };
        Known {
            uid: String::new(),
            version: 1,
            generation: None,
            class: "free".to_owned(),
            desired: Desired::default(),
            restore: None,
            status: Status {
                state,
                conditions: vec![condition],
                ..Status::default()
            },
            beside: Beside::default(),
            is_visited: true,
        }
    }

    #[test]
    fn learners_pools_and_who_leads_are_shown_as_the_objects_say() {
        let mut world = World::new(Gate::new(Budget {
            live: 9,
            starting: 8,
            per_second: 7,
        }));
        let learners = [
            ("ada", LearnerState::Asleep, ConditionStatus::True),
            ("bob", LearnerState::Asleep, ConditionStatus::False),
            ("eve", LearnerState::Failed, ConditionStatus::False),
        ];
        for (name, state, at_risk) in learners {
            world.put_learner(&name.parse().unwrap(), known(state, at_risk));
        }
        for name in ["ada", "bob"] {
            world
                .gate
                .ask(&name.parse().unwrap(), Timestamp::UNIX_EPOCH);
        }
        let mut spec = ClassSpec::default();
        spec.warm_pool.size = 5;
        let class = Class {
            name: "free".to_owned(),
            uid: String::new(),
            generation: None,
            spec,
            hash: "abc".to_owned(),
        };
        world.classes.insert(class.name.clone(), Arc::new(class));
        let mut registry = Registry::with_prefix("carrel");
        registry.register_collector(Box::new(Shown(world, true)));
        let mut text = String::new();
        encode_text(&mut text, &registry).unwrap();
        for line in [
            "carrel_learners{state=\"Asleep\",class=\"free\"} 2",
            "carrel_learners{state=\"Failed\",class=\"free\"} 1",
            "carrel_learners_at_risk 1",
            "carrel_wakes_waiting 2",
            "carrel_pool_pods{class=\"free\",kind=\"ready\"} 0",
            "carrel_pool_pods{class=\"free\",kind=\"wanted\"} 5",
            "carrel_leader 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
