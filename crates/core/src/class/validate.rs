//! The bounds of a class document. Each violation names the field by its path and says what it must be.

use std::fmt;

use super::{Adapter, ClassSpec};

/// One broken bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path below the document, as in `spec.idle.minSeconds`.
    pub field: &'static str,
    /// What it must be.
    pub must: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.must)
    }
}

pub(super) fn violations(spec: &ClassSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |holds: bool, field: &'static str, must: &str| {
        if !holds {
            found.push(Violation {
                field,
                must: must.to_owned(),
            });
        }
    };
    let within = |value: u32, low: u32, high: u32| (low..=high).contains(&value);
    let (agent, idle, turn) = (&spec.agent, &spec.idle, &spec.turn);
    let (resources, requests) = (&spec.resources, &spec.resources.requests);

    check(
        agent.port >= 1024,
        "spec.agent.port",
        "must be from 1024 to 65535",
    );
    check(
        within(agent.start_seconds, 1, 600),
        "spec.agent.startSeconds",
        "must be from 1 to 600",
    );
    check(
        agent.adapter != Adapter::Command || !agent.command.is_empty(),
        "spec.agent.command",
        "must be given with the adapter 'Command'",
    );
    check(
        within(resources.cpu.0, 10, 64_000),
        "spec.resources.cpu",
        "must be from '10m' to '64'",
    );
    check(
        (16 << 20..=1 << 40).contains(&resources.memory.0),
        "spec.resources.memory",
        "must be from '16Mi' to '1Ti'",
    );
    check(
        (1 << 20..=1 << 40).contains(&resources.ephemeral_storage.0),
        "spec.resources.ephemeralStorage",
        "must be from '1Mi' to '1Ti'",
    );
    check(
        within(resources.pids, 8, 32_768),
        "spec.resources.pids",
        "must be from 8 to 32768",
    );
    check(
        requests
            .cpu
            .is_none_or(|cpu| within(cpu.0, 1, resources.cpu.0)),
        "spec.resources.requests.cpu",
        "must be from '1m' to spec.resources.cpu",
    );
    check(
        requests
            .memory
            .is_none_or(|memory| (1 << 20..=resources.memory.0).contains(&memory.0)),
        "spec.resources.requests.memory",
        "must be from '1Mi' to spec.resources.memory",
    );
    check(
        within(idle.min_seconds, 1, 86_400),
        "spec.idle.minSeconds",
        "must be from 1 to 86400",
    );
    check(
        within(idle.max_seconds, idle.min_seconds.max(1), 86_400),
        "spec.idle.maxSeconds",
        "must be from minSeconds to 86400",
    );
    check(
        within(idle.max_awake_seconds, 60, 72_000),
        "spec.idle.maxAwakeSeconds",
        "must be from 60 to 72000",
    );
    check(
        within(turn.timeout_seconds, 1, 3600),
        "spec.turn.timeoutSeconds",
        "must be from 1 to 3600",
    );
    check(
        within(turn.max_queued, 1, 1000),
        "spec.turn.maxQueued",
        "must be from 1 to 1000",
    );
    check(
        spec.warm_pool.size <= 2000,
        "spec.warmPool.size",
        "must be at most 2000",
    );
    check(
        within(spec.snapshot.keep_last, 1, 1000),
        "spec.snapshot.keepLast",
        "must be 1 to 1000",
    );
    check(
        (1..=10_000_000).contains(&spec.snapshot.max_files),
        "spec.snapshot.maxFiles",
        "must be from 1 to 10000000",
    );
    check(
        spec.snapshot.max_bytes.0 <= resources.ephemeral_storage.0,
        "spec.snapshot.maxBytes",
        "must be at most spec.resources.ephemeralStorage",
    );
    check(
        spec.models.routes.values().all(|model| model.contains('/')),
        "spec.models.routes",
        "must name each model as 'provider/model'",
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_class_breaks_no_bound() {
        assert_eq!(ClassSpec::default().violations(), Vec::new());
    }

    #[test]
    fn a_command_adapter_without_a_command_is_named() {
        let mut spec = ClassSpec::default();
        spec.agent.adapter = Adapter::Command;
        spec.idle.max_seconds = 5;
        let fields: Vec<_> = spec.violations().iter().map(|v| v.field).collect();
        assert_eq!(fields, ["spec.agent.command", "spec.idle.maxSeconds"]);
    }

    #[test]
    fn a_request_is_something_and_no_more_than_the_limit() {
        let broken = |cpu: &str, memory: &str| -> Vec<_> {
            let mut spec = ClassSpec::default();
            spec.resources.requests.cpu = Some(cpu.parse().unwrap());
            spec.resources.requests.memory = Some(memory.parse().unwrap());
            spec.violations().iter().map(|v| v.field).collect()
        };
        let (cpu, memory) = (
            "spec.resources.requests.cpu",
            "spec.resources.requests.memory",
        );
        assert_eq!(broken("1m", "1Mi"), [""; 0]);
        assert_eq!(broken("500m", "512Mi"), [""; 0]);
        assert_eq!(broken("0", "512Mi"), [cpu]);
        assert_eq!(broken("501m", "512Mi"), [cpu]);
        assert_eq!(broken("500m", "1023Ki"), [memory]);
        assert_eq!(broken("500m", "513Mi"), [memory]);
    }
}
