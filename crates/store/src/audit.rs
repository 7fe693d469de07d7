//! Whether what the store holds adds up: what is said twice is said the same way.

use carrel_core::LearnerId;

use crate::Result;

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contradiction {
    /// Whose.
    pub learner: LearnerId,
    /// What, for people.
    pub what: &'static str,
}

/// Looks at everything that is stored. Reads whole tables: for operators and tests, never on a hot path.
#[async_trait::async_trait]
pub trait Audit: Send + Sync {
    /// What does not add up, by learner; each comparison is one statement, so that what is written meanwhile disturbs none.
    async fn contradictions(&self) -> Result<Vec<Contradiction>>;
}
