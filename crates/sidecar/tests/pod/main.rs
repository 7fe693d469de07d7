//! Pods as they are: sidecar, shim and agent as real processes, without isolation, against a vault and a router whose
//! answers each test writes.

mod assignment;
mod failures;
mod pod;
mod proxies;
mod sleep;
mod turns;
mod vault;
