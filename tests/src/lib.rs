#![doc = include_str!("../README.md")]

pub mod agent;
pub mod api;
pub mod machine;
mod require;
pub mod seed;
pub mod shell;
pub mod stream;
pub mod up;
pub mod wait;

pub use api::{Accepted, Api};
pub use require::{carrel, skip};
pub use stream::{Event, Place, Stream};
pub use up::{Setup, Up};
pub use wait::eventually;
