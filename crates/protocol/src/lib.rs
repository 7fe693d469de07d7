#![doc = include_str!("../README.md")]

pub mod agent;
pub mod endpoint;
pub mod fleet;
pub mod gateway;
pub mod problem;
pub mod sidecar;
pub mod token;
pub mod vault;

pub use endpoint::Endpoint;
pub use problem::{Code, Problem};
