//! Erasing a learner, in steps that can each be repeated: closed, rows gone, repository swept.

use carrel_core::{LearnerId, RepositoryId, TurnId};
use carrel_store::adapter::column::nanos;
use carrel_store::adapter::outcome::{Outcome, learner_closed};
use jiff::Timestamp;
use uuid::Uuid;

use crate::PostgresStore;
use crate::access::REVOKE;
use crate::fault::Inner;
use crate::write::Write;

pub(crate) const CLOSE: &str = "UPDATE learner SET closing = true, \
    fence = greatest(fence, status_epoch) + 1 WHERE id = $1 AND NOT closing";
pub(crate) const OPEN: &str =
    "SELECT turn_id FROM turn WHERE learner = $1 AND state IN ('queued', 'running') ORDER BY place";
pub(crate) const UNSWEPT: &str =
    "SELECT repository FROM tombstone WHERE NOT swept AND erased_time < $1 ORDER BY erased_time";

impl PostgresStore {
    pub(crate) async fn close_rows(&self, id: &LearnerId, now: Timestamp) -> Inner<bool> {
        let mut write = self.write(id).await?;
        let there = close(&mut write, id, now).await?;
        write.commit().await?;
        Ok(there)
    }

    /// By a function of the schema, with rights that no role of the application has.
    pub(crate) async fn erase_rows(&self, id: &LearnerId, now: Timestamp) -> Inner<()> {
        sqlx::query("SELECT erase_closed($1, $2)")
            .bind(id.as_str())
            .bind(nanos(now))
            .execute(&self.turns)
            .await?;
        self.hints.give(id);
        Ok(())
    }

    pub(crate) async fn unswept(&self, before: Timestamp) -> Inner<Vec<RepositoryId>> {
        let rows: Vec<Uuid> = sqlx::query_scalar(UNSWEPT)
            .bind(nanos(before))
            .fetch_all(&self.reports)
            .await?;
        Ok(rows.into_iter().map(RepositoryId).collect())
    }

    pub(crate) async fn mark_swept(&self, repository: RepositoryId) -> Inner<()> {
        sqlx::query("UPDATE tombstone SET swept = true WHERE repository = $1")
            .bind(repository.0)
            .execute(&self.turns)
            .await?;
        Ok(())
    }
}

/// Closes a learner; nothing more comes in, runs or is delivered. `false`: no such learner.
async fn close(write: &mut Write, id: &LearnerId, now: Timestamp) -> Inner<bool> {
    let closed = sqlx::query(CLOSE)
        .bind(id.as_str())
        .execute(write.connection())
        .await?;
    if closed.rows_affected() == 0 {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM learner WHERE id = $1)")
            .bind(id.as_str())
            .fetch_one(write.connection())
            .await?;
        return Ok(there);
    }
    let open: Vec<Uuid> = sqlx::query_scalar(OPEN)
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    for turn in open {
        let Some(standing) = write.standing(TurnId(turn)).await? else {
            continue;
        };
        let timing = standing.turn.timing;
        write
            .end_turn(&standing, Outcome::Failed(&learner_closed()), timing, now)
            .await?;
    }
    for statement in [REVOKE, "DELETE FROM outbox WHERE learner = $1"] {
        sqlx::query(statement)
            .bind(id.as_str())
            .execute(write.connection())
            .await?;
    }
    write.hint(id);
    Ok(true)
}
