#![doc = include_str!("../README.md")]

pub mod agent;
pub mod api;
mod certificates;
pub mod cluster;
pub mod figures;
pub mod machine;
mod require;
pub mod roles;
pub mod seed;
pub mod shell;
pub mod stream;
pub mod up;
pub mod variables;
pub mod wait;

pub use api::{Accepted, Api};
pub use require::{carrel, skip};
pub use roles::{Member, Roles};
pub use stream::{Event, Place, Stream};
pub use up::{Setup, Up};
pub use wait::{eventually, eventually_every};
