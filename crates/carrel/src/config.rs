//! `carrel.yaml`: one file for every role. Read whole, merged with `CARREL_<PATH>` variables, checked before anything
//! starts. Nothing else in the program reads the environment for configuration.

mod changes;
mod documents;
mod kubernetes;
mod load;
mod located;
mod objects;
mod origin;
mod store;
mod wording;

use std::collections::BTreeMap;

use carrel_core::class::Bytes;
use carrel_telemetry::LogFormat;
use serde::{Deserialize, Serialize};

pub(crate) use changes::waiting;
pub(crate) use documents::ClassDocument;
pub(crate) use kubernetes::{FleetKind, Kubernetes};
pub(crate) use load::{Error, Loaded, files, load, read};
pub(crate) use objects::ObjectsAt;
pub(crate) use store::StoreAt;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) keys: Keys,
    pub(crate) tls: Tls,
    pub(crate) gateway: Gateway,
    pub(crate) fleet: Fleet,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) router: Router,
    pub(crate) vault: Vault,
    pub(crate) health: Health,
    pub(crate) telemetry: Telemetry,
    pub(crate) providers: Vec<Provider>,
    pub(crate) routes: BTreeMap<String, Vec<RouteTarget>>,
    pub(crate) prices: Prices,
    pub(crate) limits: Limits,
}

/// Durable state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Store {
    /// `sqlite:FILE`, where a relative file lies in the data folder, or `postgres://ROLE@HOST/DATABASE`.
    pub(crate) url: String,
    /// The password of the role in PostgreSQL: a file, or `env:NAME`.
    pub(crate) password_file: String,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: "sqlite:store.db".to_owned(),
            password_file: String::new(),
        }
    }
}

/// Snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Objects {
    /// `file:FOLDER`, where a relative folder lies in the data folder, or `s3://BUCKET/PREFIX`.
    pub(crate) url: String,
    /// The server's URL; empty: Amazon's of the region.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    /// Whether the bucket stands in the path and not in the host's name.
    pub(crate) path_style: bool,
    /// A file as Amazon's tools have it, or `env:NAME` of its text; empty: what the environment of a workload gives.
    pub(crate) credentials_file: String,
    /// Certificates in PEM that are trusted besides the system's.
    pub(crate) ca_file: String,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            url: "file:objects".to_owned(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            path_style: false,
            credentials_file: String::new(),
            ca_file: String::new(),
        }
    }
}

/// Files of keys; relative ones lie in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "the names that the file has")]
pub(crate) struct Keys {
    pub(crate) kek_file: String,
    /// Signs what pods and their tokens are known by; the fleet's.
    pub(crate) signing_key_file: String,
    /// Its public half, for router and vault.
    pub(crate) verifying_keys_file: String,
    /// By which sidecars and the vault know a gateway; one for all gateways.
    pub(crate) gateway_key_file: String,
    /// Its public half, for fleet and vault.
    pub(crate) gateway_verifying_keys_file: String,
    pub(crate) admin_token_file: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            kek_file: "kek".to_owned(),
            signing_key_file: "signing.key".to_owned(),
            verifying_keys_file: "signing.pub".to_owned(),
            gateway_key_file: "gateway.key".to_owned(),
            gateway_verifying_keys_file: "gateway.pub".to_owned(),
            admin_token_file: "admin.token".to_owned(),
        }
    }
}

/// How roles that are processes of their own are known to each other; relative files lie in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "the names that the file has")]
pub(crate) struct Tls {
    /// The certificate, and its chain, that the role shows where it listens, in PEM; empty: it listens without TLS.
    pub(crate) cert_file: String,
    /// The certificate's key.
    pub(crate) key_file: String,
    /// The authorities whose word alone is taken for who another role is, in PEM; empty: the machine's.
    pub(crate) ca_file: String,
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Gateway {
    pub(crate) listen: String,
    /// Where its learners' pods are. Of a process of its own alone.
    pub(crate) fleet: FleetKind,
    /// How people reach it, for links; empty: as it listens.
    pub(crate) public_url: String,
    /// How other gateways reach this one; empty: as it listens. Of a process of its own alone, as the two below.
    pub(crate) relay_url: String,
    /// How pods reach the router.
    pub(crate) router_url: String,
    /// How gateways, pods and the controller reach the vault.
    pub(crate) vault_url: String,
    /// How pods reach the router's egress port, where their class allows hosts; empty: pods go there by themselves.
    pub(crate) egress_url: String,
    /// Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub(crate) trusted_proxies: Vec<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            fleet: FleetKind::Local,
            public_url: String::new(),
            relay_url: String::new(),
            router_url: "http://127.0.0.1:7071".to_owned(),
            vault_url: "http://127.0.0.1:7072".to_owned(),
            egress_url: String::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The local fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Fleet {
    pub(crate) max_live: u32,
    pub(crate) starts_per_second: u32,
    pub(crate) isolation: Isolation,
    /// Where gateways on other machines come in to the pods; empty: all gateways are on the fleet's machine. Of a process
    /// of its own alone, as the one below.
    pub(crate) listen: String,
    /// How gateways reach that; empty: as it listens.
    pub(crate) url: String,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            max_live: 200,
            starts_per_second: 10,
            isolation: Isolation::Auto,
            listen: String::new(),
            url: String::new(),
        }
    }
}

/// How agents are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// Containers where they work, else plain processes, said aloud.
    #[default]
    Auto,
    /// Containers, or nothing starts.
    Oci,
    /// Plain processes: nothing isolates.
    Process,
}

/// The router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Router {
    pub(crate) listen: String,
    /// Keys of callers that are no learners: files or `env:NAME`.
    pub(crate) keys: Vec<String>,
    /// Whether callers on loopback need no key.
    pub(crate) open_on_loopback: bool,
    /// Where pods without a way out of their own ask for one; empty: nowhere.
    pub(crate) egress_listen: String,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7071".to_owned(),
            keys: Vec::new(),
            open_on_loopback: false,
            egress_listen: String::new(),
        }
    }
}

/// The vault, as a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Vault {
    pub(crate) listen: String,
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7072".to_owned(),
        }
    }
}

/// The health paths of a role that is a process of its own; `carrel up` has them at the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Health {
    pub(crate) listen: String,
    /// How long a role that was told to end goes on as before while its `/readyz` says that it is not ready.
    pub(crate) drain_seconds: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7079".to_owned(),
            drain_seconds: 5,
        }
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    pub(crate) log_format: LogFormat,
    /// Directives as in `info,carrel_gateway=debug`.
    pub(crate) log_filter: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            // Who edits the file of a running server hears that it took.
            log_filter: "warn,carrel::up=info".to_owned(),
        }
    }
}

/// A provider of models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) dialect: Dialect,
    pub(crate) base_url: String,
    /// Files or `env:NAME`, used in turn; none for a server that wants none.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dialect {
    /// Anthropic Messages.
    Anthropic,
    /// `OpenAI` Chat Completions.
    OpenAiChat,
}

/// One of the models of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RouteTarget {
    /// `provider/model`.
    pub(crate) model: String,
}

/// Prices of models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Prices {
    /// A file whose prices win over the built-in ones.
    pub(crate) overlay_file: String,
}

/// What clients may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) message_bytes: Bytes,
    pub(crate) attachment_bytes: Bytes,
    /// Newly accepted messages of one learner.
    pub(crate) messages_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: Bytes(1 << 20),
            attachment_bytes: Bytes(8 << 20),
            messages_per_minute: 60,
        }
    }
}
