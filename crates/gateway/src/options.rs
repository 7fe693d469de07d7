//! What a gateway is made of.

use std::fmt;
use std::sync::Arc;

use carrel_protocol::fleet::Fleet;
use carrel_protocol::token::Signer;
use carrel_store::SharedStore;
use carrel_store::access::SecretHash;
use carrel_telemetry::Health;
use carrel_wire::Trust;
use jiff::Timestamp;

use crate::metrics::Metrics;
use crate::outside::TrustedProxies;
use crate::vault_admin::VaultAdmin;

/// What tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks this.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// What clients may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a message's text.
    pub message_bytes: usize,
    /// The most bytes of all files of a message together.
    pub attachment_bytes: usize,
    /// Newly accepted messages of one learner in a minute.
    pub messages_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            attachment_bytes: 8 << 20,
            messages_per_minute: 60,
        }
    }
}

/// What a gateway is made of.
pub struct Options {
    /// Durable state.
    pub store: SharedStore,
    /// Incarnations.
    pub fleet: Arc<dyn Fleet>,
    /// Snapshots, for operators.
    pub vault: Arc<dyn VaultAdmin>,
    /// The key by which sidecars know this gateway.
    pub signer: Signer,
    /// Whose word is taken for who another gateway or a sidecar is.
    pub trust: Trust,
    /// What clients may send.
    pub limits: Limits,
    /// Where clients reach this gateway, without a slash at its end; for links.
    pub public_url: String,
    /// Where other gateways reach this one, for streams of turns that it runs; empty when there are none.
    pub relay_url: String,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: TrustedProxies,
    /// SHA-256 of the admin token; [`crate::hash_of`] makes it.
    pub admin_token_hash: SecretHash,
    /// The time.
    pub clock: Clock,
    /// What is measured; registered before.
    pub metrics: Metrics,
    /// The health paths that are served beside the API.
    pub health: Health,
    /// Whether no other gateway uses this store: leases of others are then those of the dead.
    pub alone: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("public_url", &self.public_url)
            .field("alone", &self.alone)
            .finish_non_exhaustive()
    }
}
