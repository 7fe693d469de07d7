//! What a controller is told.

use std::net::{IpAddr, SocketAddr};

use carrel_protocol::Endpoint;
use carrel_protocol::token::{PublicKey, Signer};
use carrel_wire::Trust;
use jiff::Timestamp;
use serde_json::Value;

use crate::gate::Budget;

/// What a controller is told.
#[derive(Clone)]
pub struct Options {
    /// Where `Learner` and `LearnerClass` objects are, and the lease.
    pub namespace: String,
    /// This process among others: the holder of the lease.
    pub identity: String,
    /// What is admitted.
    pub budget: Budget,
    /// The most pods that a second may bring a pool.
    pub refills_per_second: u32,
    /// What pods are made of.
    pub pods: PodOptions,
    /// Signs assignments.
    pub signer: Signer,
    /// Who may call sidecars: the gateways' keys and ours.
    pub callers: Vec<PublicKey>,
    /// Whose word is taken for who a role is.
    pub trust: Trust,
    /// How pods reach the routers.
    pub router: Endpoint,
    /// How pods reach the vaults.
    pub vault: Endpoint,
    /// How pods reach other hosts, where their class allows any.
    pub egress: Option<Endpoint>,
    /// The agents' time zone.
    pub time_zone: String,
    /// The agents' locale.
    pub locale: String,
    /// The time.
    pub now: fn() -> Timestamp,
}

/// What the pods of all classes have in common.
#[derive(Debug, Clone)]
pub struct PodOptions {
    /// Where they are made: the learner namespaces.
    pub namespaces: Vec<String>,
    /// The most pods in one of them; Kubernetes is tested to 3,000.
    pub most_in_namespace: usize,
    /// Carrel's own image.
    pub image: String,
    /// When it is pulled; empty: as Kubernetes decides.
    pub image_pull_policy: String,
    /// The names of secrets in the learner namespaces by which images are pulled.
    pub image_pull_secrets: Vec<String>,
    /// Names that pods know without asking anybody: address and name of routers and vaults.
    pub host_aliases: Vec<(IpAddr, String)>,
    /// The port on which sidecars listen.
    pub port: u16,
    /// What every sidecar tries and must not reach; empty: no self-test.
    pub must_not_reach: Vec<SocketAddr>,
    /// … and of which it must reach one, as `host:port`.
    pub must_reach: Vec<String>,
    /// How long a pod that is ended may take: a turn that does not end in it runs again.
    pub grace_seconds: u32,
    /// The priority class; empty: the cluster's default.
    pub priority_class: String,
    /// Labels of the nodes on which they may run, tolerations, spread: as a pod's spec has them.
    pub node_selector: Value,
    /// Further tolerations.
    pub tolerations: Vec<Value>,
    /// How they are spread.
    pub topology_spread_constraints: Vec<Value>,
}
