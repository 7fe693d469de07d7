#![doc = include_str!("../README.md")]

mod admission;
#[cfg(test)]
mod again;
mod assignment;
pub mod container;
mod door;
mod fleet;
pub mod image;
mod learner;
mod leftovers;
mod metrics;
mod pod;
mod removal;

pub use admission::Budget;
pub use fleet::{Clock, LocalFleet, Options, StartError, WantedIsolation};
pub use metrics::Metrics;
