#![doc = include_str!("../README.md")]

pub mod api_writes;
pub mod health;
pub mod label;
pub mod logs;
pub mod snapshots;
pub mod wakes;

pub use api_writes::ApiWrites;
pub use health::{Health, Readiness};
pub use logs::{LogFormat, chain};
pub use prometheus_client::registry::Registry;
pub use snapshots::Snapshots;
pub use wakes::Wakes;

use prometheus_client::metrics::info::Info;

/// A registry whose metric names begin with `carrel_`, with `carrel_build_info` in it.
pub fn registry(version: &str) -> Registry {
    let mut registry = Registry::with_prefix("carrel");
    let info = Info::new(vec![("version".to_owned(), version.to_owned())]);
    registry.register("build", "The version that runs", info);
    registry
}
