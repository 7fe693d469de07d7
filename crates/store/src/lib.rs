#![doc = include_str!("../README.md")]

pub mod access;
pub mod adapter;
pub mod audit;
pub mod heads;
pub mod learners;
pub mod ledger;
pub mod processes;
#[cfg(feature = "suite")]
pub mod suite;
pub mod turns;

use std::sync::Arc;

pub use access::Access;
pub use audit::Audit;
pub use heads::Heads;
pub use learners::Learners;
pub use ledger::Ledger;
pub use processes::Processes;
pub use turns::Turns;

use carrel_core::event::{Cursor, Event, FeedEvent};
use carrel_core::{EventVersion, LearnerId};

/// Why the store could not answer. Refusals that a caller acts on are values of the methods, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is too busy; trying again later may help.
    #[error("the store cannot be reached while {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the database holds or answered makes no sense; a person must look.
    #[error("the store answered something impossible while {doing}: {what}")]
    Corrupt {
        /// What was being done.
        doing: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The database's role has no right to it.
    #[error("the role of the database may not do what is needed for {doing} ({what})")]
    NotAllowed {
        /// What was being done.
        doing: &'static str,
        /// What the database says.
        what: String,
    },
    /// The schema is of another version.
    #[error(
        "the store's schema is version {found} and this program needs {wanted}: run 'carrel migrate'"
    )]
    Schema {
        /// What the database has.
        found: i64,
        /// What this program needs.
        wanted: i64,
    },
}

/// What a method gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The append-only log, read.
#[async_trait::async_trait]
pub trait Events: Send + Sync {
    /// A learner's events after `after`, oldest first, at most `limit`.
    async fn events(
        &self,
        learner: &LearnerId,
        after: EventVersion,
        limit: u32,
    ) -> Result<Vec<Event>>;

    /// Everybody's events after a place, in an order that never shows a place before an earlier one is final. What was
    /// appended may be shown a little later for that: when whatever was being written before it has ended.
    async fn feed(&self, after: Cursor, limit: u32) -> Result<Vec<FeedEvent>>;

    /// A hint that something was appended, wished or seen for some learner, in this process or another. May be late, may be spurious,
    /// may merge several; a reader that waits on it also polls.
    fn changes(&self) -> tokio::sync::broadcast::Receiver<LearnerId>;
}

/// All of durable state.
pub trait Store:
    Learners + Turns + Heads + Ledger + Access + Events + Processes + Audit + 'static
{
}

impl<T: Learners + Turns + Heads + Ledger + Access + Events + Processes + Audit + 'static> Store
    for T
{
}

/// A store as the roles hold it.
pub type SharedStore = Arc<dyn Store>;
