//! Agents and clients that mean harm: each is refused or bounded, with the right word for it, and nobody else is hurt.

mod agents;
mod answer;
mod budget;
mod clients;
mod exhaustion;
mod network;
mod raw;
mod secrets;
mod tokens;
mod workspace;

use carrel_tests::shell;
