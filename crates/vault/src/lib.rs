#![doc = include_str!("../README.md")]

mod backend;
mod comparison;
mod damage;
pub mod durable;
mod error;
mod heads;
mod http;
mod inspect;
mod keyring;
mod learner;
mod maintenance;
mod objects;
mod operations;
mod repository;
mod restic;
mod retention;
mod vault;

pub use comparison::compare;
pub use damage::Damage;
pub use error::Error;
pub use http::router;
pub use keyring::{Keyring, is_open_to_others};
pub use maintenance::Maintained;
pub use objects::{FileKind, Objects, S3, S3Credentials, S3Keys};
pub use operations::{SnapshotInfo, Verification, try_keys};
pub use retention::{Dated, kept};
pub use vault::{Clock, Options, Vault};
