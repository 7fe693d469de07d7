//! Whether what is stored adds up.

use carrel_store::adapter::audit::CHECKS;
use carrel_store::adapter::column::parsed;
use carrel_store::audit::Contradiction;
use carrel_store::{Audit, Result};

use crate::SqliteStore;
use crate::fault::{Inner, during};

impl SqliteStore {
    async fn compare(&self) -> Inner<Vec<Contradiction>> {
        self.catch_up().await?;
        let mut found = Vec::new();
        for (what, statement) in CHECKS {
            let learners: Vec<String> = sqlx::query_scalar(statement)
                .fetch_all(&self.readers)
                .await?;
            for learner in learners {
                found.push(Contradiction {
                    learner: parsed(&learner)?,
                    what,
                });
            }
        }
        found.sort();
        Ok(found)
    }
}

#[async_trait::async_trait]
impl Audit for SqliteStore {
    async fn contradictions(&self) -> Result<Vec<Contradiction>> {
        self.compare()
            .await
            .map_err(during("comparing what is stored"))
    }
}
