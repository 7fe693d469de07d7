#![doc = include_str!("../README.md")]

mod admin;
mod api;
mod auth;
mod body;
mod census;
mod cookie;
mod dispatch;
mod envelope;
mod gateway;
mod grant;
mod metrics;
mod options;
mod outside;
mod pass;
mod paths;
mod rate;
mod refusal;
mod secret;
mod serve;
mod sidecar;
mod store_fleet;
mod stream;
pub mod vault_admin;

pub use admin::{EventPage, ResticEnvironment, SnapshotCheck, UsageReport};
pub use api::paths;
pub use dispatch::report;
pub use gateway::{Handle, start};
pub use metrics::Metrics;
pub use options::{Clock, Limits, Options};
pub use outside::TrustedProxies;
pub use secret::{fresh as new_secret, hash_of};
pub use serve::serve;
pub use store_fleet::StoreFleet;
pub use vault_admin::VaultAdmin;
