//! `LearnerClass`: the schema of what the pods of a kind of learner are given. [`carrel_core::class`] says what each field means
//! to the product, and bounds it on one machine; here stands what an API server checks and `kubectl explain` prints.

#![expect(
    unreachable_pub,
    reason = "the schema's derive declares each struct a second time, inside a function"
)]
#![expect(
    clippy::struct_field_names,
    reason = "fields say their unit, as the conventions of the API want"
)]

use std::collections::BTreeMap;

use carrel_core::class::ClassSpec;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What the pods of a kind of learner are given: agent, limits, idle window, snapshots, models, budget.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "carrel.dev",
    version = "v1alpha1",
    kind = "LearnerClass",
    plural = "learnerclasses",
    shortname = "lrnclass",
    category = "carrel",
    namespaced,
    derive = "PartialEq",
    cel,
    doc = "A kind of learner: what the pods of its learners are given. A change takes effect at each learner's next wake.",
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent.image", description = "The agent's image; empty: Carrel's own"),
    printcolumn(name = "Cpu", type_ = "string", json_path = ".spec.resources.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.resources.memory"),
    printcolumn(name = "Pool", type_ = "integer", json_path = ".spec.warmPool.size", description = "Blank pods that wait"),
    printcolumn(name = "Day-Usd", type_ = "string", json_path = ".spec.budget.perDayUsd", description = "What a learner may spend in a day"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("the name must be a DNS label of at most 63 characters"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("quantity(self.snapshot.maxBytes).compareTo(quantity(self.resources.ephemeralStorage)) <= 0").message("snapshot.maxBytes must be at most resources.ephemeralStorage"))]
#[x_kube(validation = Rule::new("!has(self.resources.requests) || !has(self.resources.requests.cpu) || quantity(self.resources.requests.cpu).compareTo(quantity(self.resources.cpu)) <= 0").message("resources.requests.cpu must be at most resources.cpu"))]
#[x_kube(validation = Rule::new("!has(self.resources.requests) || !has(self.resources.requests.memory) || quantity(self.resources.requests.memory).compareTo(quantity(self.resources.memory)) <= 0").message("resources.requests.memory must be at most resources.memory"))]
pub struct LearnerClassSpec {
    /// The program that tutors.
    #[serde(default)]
    pub agent: Agent,
    /// Its limits.
    #[serde(default)]
    pub resources: Resources,
    /// How it is kept apart from others on its node.
    #[serde(default)]
    pub isolation: Isolation,
    /// When a learner is put to sleep.
    #[serde(default)]
    pub idle: Idle,
    /// What bounds one turn.
    #[serde(default)]
    pub turn: Turn,
    /// Pods that wait, blank and ready, for the next learner of the class.
    #[serde(default)]
    pub warm_pool: WarmPool,
    /// What is kept of the workspace.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// Hosts that the agent may reach beside the models.
    #[serde(default)]
    pub egress: Egress,
    /// Which models answer.
    #[serde(default)]
    pub models: Models,
    /// What may be spent, in US dollars; days and months are UTC.
    #[serde(default)]
    pub budget: Budget,
}

/// How the sidecar talks to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Adapter {
    /// The agent serves HTTP and answers a turn with NDJSON.
    #[default]
    Http,
    /// One process a turn: text on standard input, reply on standard output.
    Command,
}

/// The program that tutors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.adapter != 'Command' || size(self.command) > 0").message("command must be given with the adapter 'Command'"))]
#[x_kube(validation = Rule::new("self.image == '' || size(self.command) > 0").message("command must be given with an image: the pod starts it in place of the image's own"))]
pub struct Agent {
    /// How the sidecar talks to it: `Http` is a server that answers `POST /v1/turn`, `Command` is a process for each turn.
    #[serde(default)]
    pub adapter: Adapter,
    /// The image of the agent's container; empty: Carrel's own image.
    #[schemars(length(max = 512))]
    #[serde(default)]
    pub image: String,
    /// Program and arguments; empty without an image: the built-in tutor.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[serde(default)]
    pub command: Vec<String>,
    /// The TCP port on which an `Http` agent listens, on its loopback.
    #[schemars(range(min = 1024, max = 65535))]
    #[serde(default = "Agent::default_port")]
    pub port: i32,
    /// How many seconds an agent may take until it answers `GET /healthz`.
    #[schemars(range(min = 1, max = 600))]
    #[serde(default = "Agent::default_start_seconds")]
    pub start_seconds: i32,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            adapter: Adapter::Http,
            image: String::new(),
            command: Vec::new(),
            port: Self::default_port(),
            start_seconds: Self::default_start_seconds(),
        }
    }
}

impl Agent {
    const fn default_port() -> i32 {
        8700
    }

    const fn default_start_seconds() -> i32 {
        30
    }
}

/// The limits of one agent, and what a node keeps for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Processor time, as in '500m' or '2'; from '10m' to '64'.
    #[schemars(
        length(max = 16),
        regex(pattern = r"^([0-9]{1,5}m|[0-9]{1,2}(\.[0-9]{1,3})?)$")
    )]
    pub cpu: String,
    /// Memory, as in '512Mi'; from '16Mi' to '1Ti'.
    #[schemars(
        length(max = 20),
        regex(pattern = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub memory: String,
    /// Workspace and temporary files together, as in '1Gi'; from '1Mi' to '1Ti'.
    #[schemars(
        length(max = 20),
        regex(pattern = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub ephemeral_storage: String,
    /// Processes and threads, on one machine; on Kubernetes the node's own limit for pods holds in its place ('podPidsLimit').
    #[schemars(range(min = 8, max = 32768))]
    pub pids: i32,
    /// What a node of a cluster keeps for it; what is absent is the limit. On one machine it means nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

/// What a node keeps for one agent: a pod goes where so much is free, and shares what is there besides with its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requests {
    /// Processor time, as in '50m'; from '1m' to resources.cpu, which is meant when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        regex(pattern = r"^([0-9]{1,5}m|[0-9]{1,2}(\.[0-9]{1,3})?)$")
    )]
    pub cpu: Option<String>,
    /// Memory, as in '128Mi'; from '1Mi' to resources.memory, which is meant when it is absent. Who uses more is evicted first when the node
    /// has none left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 20),
        regex(pattern = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub memory: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: "500m".to_owned(),
            memory: "512Mi".to_owned(),
            ephemeral_storage: "1Gi".to_owned(),
            pids: 256,
            requests: None,
        }
    }
}

/// How an agent is kept apart from others on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Isolation {
    /// The RuntimeClass of its pods, as in 'gvisor'; empty: the cluster's default.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")
    )]
    pub runtime_class_name: String,
    /// Whether its pods get a user namespace of their own (`hostUsers: false`); needs Linux 6.3 and containerd 2 or CRI-O 1.25.
    pub user_namespace: bool,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            runtime_class_name: String::new(),
            user_namespace: true,
        }
    }
}

/// When a learner is put to sleep: after three times the median gap of the last five messages, within these bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minSeconds <= self.maxSeconds").message("minSeconds must be at most maxSeconds"))]
pub struct Idle {
    /// The shortest idle window, in seconds.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(default = "Idle::default_min_seconds")]
    pub min_seconds: i32,
    /// The longest idle window, in seconds.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(default = "Idle::default_max_seconds")]
    pub max_seconds: i32,
    /// The longest life of one pod, in seconds; after it the learner sleeps at its next quiet moment. At most 20 hours.
    #[schemars(range(min = 60, max = 72000))]
    #[serde(default = "Idle::default_max_awake_seconds")]
    pub max_awake_seconds: i32,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            min_seconds: Self::default_min_seconds(),
            max_seconds: Self::default_max_seconds(),
            max_awake_seconds: Self::default_max_awake_seconds(),
        }
    }
}

impl Idle {
    const fn default_min_seconds() -> i32 {
        60
    }

    const fn default_max_seconds() -> i32 {
        900
    }

    const fn default_max_awake_seconds() -> i32 {
        72_000
    }
}

/// What bounds one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Turn {
    /// How many seconds a turn may take.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,
    /// How many messages of one learner may wait.
    #[schemars(range(min = 1, max = 1000))]
    pub max_queued: i32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            timeout_seconds: 300,
            max_queued: 20,
        }
    }
}

/// Pods that wait, blank and ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WarmPool {
    /// How many.
    #[schemars(range(min = 0, max = 2000))]
    pub size: i32,
}

/// What is kept of the workspace, and what may not be in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Snapshot {
    /// How many of the newest snapshots are kept.
    #[schemars(range(min = 1, max = 1000))]
    pub keep_last: i32,
    /// Of how many days the last snapshot is kept.
    #[schemars(range(min = 0, max = 1000))]
    pub keep_daily: i32,
    /// Of how many weeks the last snapshot is kept.
    #[schemars(range(min = 0, max = 1000))]
    pub keep_weekly: i32,
    /// The most bytes in a workspace, as in '1Gi'; at most resources.ephemeralStorage.
    #[schemars(
        length(max = 20),
        regex(pattern = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub max_bytes: String,
    /// The most files in a workspace.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_files: i64,
    /// Names of files or folders, anywhere in the workspace, that are not kept.
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub exclude: Vec<String>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            keep_last: 3,
            keep_daily: 7,
            keep_weekly: 4,
            max_bytes: "1Gi".to_owned(),
            max_files: 100_000,
            exclude: vec!["node_modules".to_owned(), ".cache".to_owned()],
        }
    }
}

/// Hosts that the agent may reach beside the models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Egress {
    /// Host names, as in 'pypi.example' or '*.pypi.example', or CIDRs; reached through the router's egress port by HTTPS_PROXY.
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allow: Vec<String>,
}

/// Which models answer an agent of the class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("size(self.routes) <= 64 && self.routes.all(name, self.routes[name].contains('/'))").message("each route must name its model as 'provider/model'"))]
pub struct Models {
    /// Route name to 'provider/model'; these win over the router's own.
    #[schemars(extend("maxProperties" = 64), schema_with = "routes")]
    #[serde(default)]
    pub routes: BTreeMap<String, String>,
    /// Patterns of 'provider/model' with '*'; empty: whatever the routes name.
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[serde(default)]
    pub allow: Vec<String>,
}

fn routes(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 253},
    })
}

/// What happens when a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnExhausted {
    /// Try the route `background` under the same budget, then refuse.
    #[default]
    Degrade,
    /// Refuse at once.
    Refuse,
}

/// What a learner of the class may spend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// The most in one day, in US dollars, as in '0.50'; absent: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"))]
    pub per_day_usd: Option<String>,
    /// The most in one month, in US dollars, as in '5.00'; absent: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"))]
    pub per_month_usd: Option<String>,
    /// What happens then: `Degrade` tries the route 'background' under the same budget first, `Refuse` refuses at once.
    pub on_exhausted: OnExhausted,
}

impl LearnerClassSpec {
    /// The class as the product knows it.
    ///
    /// # Errors
    /// A field that the API server let through and that cannot be used, by its path.
    pub fn to_class(&self) -> Result<ClassSpec, Error> {
        let unusable = |error: serde_json::Error| Error::Field {
            field: "spec".to_owned(),
            must: error.to_string(),
        };
        let value = serde_json::to_value(self).map_err(unusable)?;
        let class: ClassSpec = serde_json::from_value(value).map_err(unusable)?;
        match class.violations().into_iter().next() {
            Some(broken) => Err(Error::Field {
                field: broken.field.to_owned(),
                must: broken.must,
            }),
            None => Ok(class),
        }
    }
}

#[cfg(test)]
mod tests;
