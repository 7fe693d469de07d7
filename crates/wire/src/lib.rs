#![doc = include_str!("../README.md")]

mod call;
mod connect;
pub mod egress;
mod identity;
mod incoming;
mod pem;
pub mod sidecar;
mod tcp;
mod trust;
pub mod vault;

pub use connect::{Duplex, Stream, connect};
pub use identity::Identity;
pub use incoming::{Arrived, Incoming};
pub use pem::Error;
pub use trust::Trust;
