//! A `LearnerClass`: what the pods of a kind of learner are given. The documents that operators write, with their
//! defaults, bounds and reasons; the same on one machine and on Kubernetes.

mod quantity;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use quantity::{Bytes, CpuMillis, Error as QuantityError};
pub use validate::Violation;

use crate::money::{NanoUsd, Usd};

/// The name of the class that is meant when none is named.
pub const DEFAULT_CLASS: &str = "default";

/// What the pods of a class are given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClassSpec {
    /// The program that tutors.
    pub agent: AgentSpec,
    /// Its limits.
    pub resources: Resources,
    /// How it is kept apart.
    pub isolation: Isolation,
    /// When it is put to sleep.
    pub idle: Idle,
    /// What bounds one turn.
    pub turn: TurnLimits,
    /// Pods that wait, blank and ready.
    pub warm_pool: WarmPool,
    /// What is kept of the workspace.
    pub snapshot: SnapshotPolicy,
    /// Hosts that the agent may reach beside the router.
    pub egress: Egress,
    /// Which models answer.
    pub models: Models,
    /// What may be spent.
    pub budget: Budget,
}

/// How the sidecar talks to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Adapter {
    /// The agent serves HTTP and answers a turn with NDJSON.
    #[default]
    Http,
    /// One process a turn: text on stdin, reply on stdout.
    Command,
}

/// The program that tutors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentSpec {
    /// How the sidecar talks to it.
    pub adapter: Adapter,
    /// An OCI image reference; empty: the host's own programs or Carrel's.
    pub image: String,
    /// The command; empty: the image's own, or the built-in agent.
    pub command: Vec<String>,
    /// The TCP port on which an `Http` agent listens.
    pub port: u16,
    /// Seconds that an agent may take to become ready.
    pub start_seconds: u32,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            adapter: Adapter::Http,
            image: String::new(),
            command: Vec::new(),
            port: 8700,
            start_seconds: 30,
        }
    }
}

/// The limits of one agent, and what a node keeps for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: Bytes,
    /// Workspace and temporary files together.
    pub ephemeral_storage: Bytes,
    /// Processes and threads.
    pub pids: u32,
    /// What a node of a cluster keeps for it; on one machine it means nothing.
    #[serde(skip_serializing_if = "Requests::are_limits")]
    pub requests: Requests,
}

/// What a node of a cluster keeps for one agent; what is absent is its limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Requests {
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuMillis>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

impl Requests {
    fn are_limits(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: CpuMillis(500),
            memory: Bytes(512 << 20),
            ephemeral_storage: Bytes(1 << 30),
            pids: 256,
            requests: Requests::default(),
        }
    }
}

/// How agents are kept apart on Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Isolation {
    /// The Kubernetes runtime class; empty: the cluster's default.
    pub runtime_class_name: String,
    /// Whether pods get a user namespace of their own.
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

/// When a learner is put to sleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Idle {
    /// The shortest idle window.
    pub min_seconds: u32,
    /// The longest idle window.
    pub max_seconds: u32,
    /// The longest life of one incarnation; its token lives no longer.
    pub max_awake_seconds: u32,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            min_seconds: 60,
            max_seconds: 900,
            max_awake_seconds: 72_000,
        }
    }
}

/// What bounds one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TurnLimits {
    /// Seconds from the message's hand-over to the agent's last line.
    pub timeout_seconds: u32,
    /// Messages that may wait for one learner.
    pub max_queued: u32,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            timeout_seconds: 300,
            max_queued: 20,
        }
    }
}

/// Pods that wait, blank and ready, for the next learner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WarmPool {
    /// How many.
    pub size: u32,
}

/// What is kept of the workspace, and what may not be in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SnapshotPolicy {
    /// Newest generations kept.
    pub keep_last: u32,
    /// Days of which the last generation is kept.
    pub keep_daily: u32,
    /// Weeks of which the last generation is kept.
    pub keep_weekly: u32,
    /// The most bytes in a workspace.
    pub max_bytes: Bytes,
    /// The most files in a workspace.
    pub max_files: u64,
    /// Names (of files or folders, anywhere) that are not kept.
    pub exclude: Vec<String>,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            keep_last: 3,
            keep_daily: 7,
            keep_weekly: 4,
            max_bytes: Bytes(1 << 30),
            max_files: 100_000,
            exclude: vec!["node_modules".to_owned(), ".cache".to_owned()],
        }
    }
}

/// Hosts that the agent may reach beside the router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Egress {
    /// Host names or CIDRs.
    pub allow: Vec<String>,
}

/// Which models answer an agent of the class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Models {
    /// Route name to `provider/model`; these win over the router's own.
    pub routes: BTreeMap<String, String>,
    /// Patterns of `provider/model` with `*`; empty: whatever the routes name.
    pub allow: Vec<String>,
}

/// What happens when a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnExhausted {
    /// Try the route `background` under the same budget, then refuse.
    #[default]
    Degrade,
    /// Refuse at once.
    Refuse,
}

/// What a learner of the class may spend. Days and months are UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budget {
    /// The most in one day; absent: no bound.
    pub per_day_usd: Option<Usd>,
    /// The most in one month; absent: no bound.
    pub per_month_usd: Option<Usd>,
    /// What happens then.
    pub on_exhausted: OnExhausted,
}

impl Budget {
    /// The day's bound.
    pub fn per_day(&self) -> Option<NanoUsd> {
        self.per_day_usd.map(|usd| usd.0)
    }

    /// The month's bound.
    pub fn per_month(&self) -> Option<NanoUsd> {
        self.per_month_usd.map(|usd| usd.0)
    }
}

impl ClassSpec {
    /// What in the document breaks a bound; empty when it is valid.
    pub fn violations(&self) -> Vec<Violation> {
        validate::violations(self)
    }

    /// Whether the agent is Carrel's own.
    pub fn is_built_in_agent(&self) -> bool {
        self.agent.image.is_empty() && self.agent.command.is_empty()
    }
}
