//! Pods as they are: sidecar, shim and agent as real processes, without isolation, against a vault and a router whose
//! answers each test writes.

#![expect(
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests fail by panicking, say why they are skipped, take the time of day and end with their runtime"
)]

mod assignment;
mod cluster;
mod contained;
mod failures;
mod on_its_own;
mod pod;
mod proxies;
mod sleep;
mod turns;
mod vault;
