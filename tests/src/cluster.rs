//! A real Kubernetes for tests: etcd, API server, controller manager and scheduler as processes of this machine, nodes that are only
//! objects or real ones, and what stands in for the sidecars of pods that run nothing.

mod access;
mod audit;
mod chart;
mod crew;
mod fake;
pub mod image;
mod installation;
mod names;
mod network;
mod node;
mod operator;
mod plane;
mod programs;
mod proxy;
pub mod school;
mod stand_in;
mod steps;
mod vault;

pub use access::Access;
pub use audit::{Mark, Write, counted, tally};
pub use chart::{Chart, objects};
pub use crew::Program;
pub use fake::placement;
pub use installation::Installation;
pub use node::{Node, NodeOptions};
pub use operator::{Operator, Said};
pub use plane::{ControlPlane, Options};
pub use proxy::{Asked, Count, Fate, Held, InForce, Proxy, Stop};
pub use stand_in::{Answer, Assigned, End, PodName, Script, StandIn};
pub use steps::Steps;
pub use vault::{Vault, Wish};
