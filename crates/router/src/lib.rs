#![doc = include_str!("../README.md")]

mod answer;
mod bound;
mod call;
mod caller;
mod catalog;
mod demo;
mod door;
mod egress;
mod http;
mod metrics;
mod options;
mod policy;
mod relay;
mod routing;
mod service;
mod spend;
mod upstream;
mod whole;

pub use http::router;
pub use metrics::Metrics;
pub use options::{Callers, Options, Provider, Routes, Target, TargetError, Timeouts};
pub use policy::{LearnerPolicy, Policy, PolicyError, StorePolicy};
pub use service::{Clock, Error, Ports, Service};
