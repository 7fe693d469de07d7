//! Pods as they are: sidecar, shim and agent as real processes, without isolation, against a vault and a router whose
//! answers each test writes.

#![expect(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, take the time of day and end with their runtime"
)]

mod assignment;
mod failures;
mod pod;
mod proxies;
mod sleep;
mod turns;
mod vault;
