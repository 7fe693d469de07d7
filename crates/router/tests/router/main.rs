//! The router on real connections: scripted providers on loopback, the SQLite store, signed tokens.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod bills;
mod budgets;
mod callers;
mod egress;
mod providers;
mod stage;
mod streams;
mod tutor;
