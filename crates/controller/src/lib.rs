#![doc = include_str!("../README.md")]

mod api;
mod assignment;
mod controller;
mod events;
mod gate;
mod learner;
mod lease;
mod metrics;
mod names;
mod options;
mod pool;
mod queue;
mod rate;
mod room;
mod shared;
mod sight;
mod template;
mod watch;
mod world;

use carrel_telemetry::chain;

pub use controller::{Clients, Ended, run};
pub use gate::Budget;
pub use metrics::Metrics;
pub use options::{Options, PodOptions};
