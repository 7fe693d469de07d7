//! Placeholder.

pub mod provider;
