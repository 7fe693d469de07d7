#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod class;
pub mod event;
pub mod id;
pub mod idle;
pub mod invariants;
pub mod learner;
pub mod lifecycle;
pub mod money;
pub mod turn;

pub use id::{
    ClassName, Epoch, EventVersion, Generation, LearnerId, LeaseGeneration, MessageId, OwnerId,
    PodUid, RepositoryId, ReservationId, SnapshotId, TurnId,
};
pub use money::NanoUsd;
