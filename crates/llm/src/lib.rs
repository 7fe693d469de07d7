#![doc = include_str!("../README.md")]

pub mod anthropic;
pub mod budget;
pub mod dialect;
pub mod estimate;
pub mod failure;
pub mod fit;
pub mod meter;
pub mod openai;
mod pdf;
pub mod price;
pub mod request;
mod server_tools;
pub mod settle;
pub mod sse;
pub mod usage;

pub use dialect::Dialect;
pub use failure::{Failure, Kind};
pub use price::{Price, PriceTable};
pub use request::Request;
pub use usage::Usage;
