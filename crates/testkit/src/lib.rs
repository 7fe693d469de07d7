#![doc = include_str!("../README.md")]

pub mod certificates;
pub mod link;
pub mod postgres;
pub mod provider;
pub mod registry;
pub mod s3;
mod wait;

pub use wait::{ends, until};
