//! Agents and clients that mean harm: each is refused or bounded, with the right word for it, and nobody else is hurt.

#![expect(
    clippy::disallowed_methods,
    reason = "tests' tasks end with their runtime, and their clocks measure the machine"
)]

mod agents;
mod answer;
mod budget;
mod clients;
mod exhaustion;
mod network;
mod raw;
mod shell;
mod tokens;
mod workspace;
