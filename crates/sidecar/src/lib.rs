#![doc = include_str!("../README.md")]

mod agent_log;
mod attempt;
mod awake;
mod clock;
mod egress;
mod environment;
pub mod exit;
mod farewell;
mod fingerprint;
mod life;
mod link;
mod loopback;
mod models;
mod options;
mod pod;
mod room;
mod run;
mod self_test;
mod serve;
mod shim;
pub mod snapshot;
mod turn;
mod upstream;
mod vault;
mod wake;

pub use exit::Exit;
pub use options::{Listen, ParseError, SidecarOptions};
pub use run::sidecar_main;
pub use shim::{ShimOptions, shim_main};
