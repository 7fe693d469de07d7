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
#[cfg(test)]
mod feed_tests;
mod gather;
mod heads;
mod hints;
mod keys;
mod learner_row;
mod learners;
mod ledger;
mod open;
mod outbox;
mod outcome;
#[cfg(test)]
mod plan_tests;
mod pool;
mod processes;
mod schema;
mod tls;
mod turn_row;
mod turns;
mod usage;
mod write;

pub use open::{Error, Options};
pub use schema::migrate;

use std::time::Duration;

use hints::Hints;
use pool::Pool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

/// Carrel's durable state in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    /// What takes messages, and who may send them: nothing else uses its connections up.
    admission: Pool,
    /// Messages that are taken together.
    taken: accept::Gathered,
    /// Turns that are claimed together.
    claims: claim::Claims,
    /// Where messages of learners wait that others write for.
    slow: [Mutex<()>; accept::SLOW],
    /// So many of them have a connection: the others are for who need not wait.
    slowly: Semaphore,
    /// Secrets that are looked up together.
    subjects: access::Subjects,
    /// Learners that are read together.
    rows: learner_row::Rows,
    /// Logs that are read together.
    logs: events::Logs,
    /// How long a caller waits for a message to be taken.
    patience: Duration,
    /// What runs turns, money and the fleet.
    turns: Pool,
    /// What reads much: lists, the log, usage.
    reports: Pool,
    /// How to connect, for what needs a connection of its own.
    connect: PgConnectOptions,
    hints: Hints,
    /// Hints, and transactions that are rolled back although nobody waits for them any more.
    tracker: TaskTracker,
    _cancel: DropGuard,
}
