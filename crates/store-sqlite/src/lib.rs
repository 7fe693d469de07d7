#![doc = include_str!("../README.md")]

mod accept;
mod access;
mod attempt;
mod audit;
mod claim;
mod commit;
mod erase;
mod events;
mod fall_back;
mod fault;
mod heads;
mod keys;
mod learner_row;
mod learners;
mod ledger;
mod open;
mod outbox;
mod outcome;
#[cfg(test)]
mod plan_tests;
mod processes;
mod turn_row;
mod turns;
mod usage;
mod write;

pub use open::Error;

use carrel_core::LearnerId;
use sqlx::SqlitePool;
use tokio::sync::broadcast;

/// Carrel's durable state in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection: writers queue here, in order of arrival.
    writer: SqlitePool,
    /// Read-only connections; each statement sees one committed state.
    readers: SqlitePool,
    /// Hints that something was appended.
    changes: broadcast::Sender<LearnerId>,
    /// The file is one process's: who else would be there is in it.
    here: processes::Here,
}
