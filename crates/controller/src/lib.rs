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
mod room;
mod shared;
mod template;
mod watch;
mod world;

pub use controller::{Clients, Ended, run};
pub use gate::Budget;
pub use metrics::Metrics;
pub use options::{Options, PodOptions};

/// An error with its causes, for a log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
