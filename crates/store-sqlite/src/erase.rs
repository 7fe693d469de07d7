//! Erasing a learner, in steps that can each be repeated: closed, rows gone, repository swept.

use carrel_core::{LearnerId, RepositoryId, TurnId};
use carrel_store::adapter::column::{nanos, uuid};
use carrel_store::adapter::outcome::{Outcome, learner_closed};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::access::REVOKE;
use crate::fault::Inner;
use crate::write::Write;

pub(crate) const OPEN: &str =
    "SELECT turn_id FROM turn WHERE learner = ? AND state IN ('queued', 'running') ORDER BY place";
pub(crate) const UNSWEPT: &str =
    "SELECT repository FROM tombstone WHERE swept = 0 AND erased_time < ? ORDER BY erased_time";

/// Every table with rows of a learner, children before parents.
pub(crate) const ERASE: [&str; 14] = [
    "DELETE FROM lost_turn WHERE learner = ?",
    "DELETE FROM generation WHERE learner = ?",
    "DELETE FROM reservation WHERE learner = ?",
    "DELETE FROM account WHERE learner = ?",
    "DELETE FROM usage WHERE learner = ?",
    "DELETE FROM file WHERE place IN (SELECT place FROM message WHERE learner = ?)",
    "DELETE FROM outbox WHERE learner = ?",
    "DELETE FROM turn WHERE learner = ?",
    "DELETE FROM message WHERE learner = ?",
    "DELETE FROM event WHERE learner = ?",
    "DELETE FROM alias WHERE learner = ?",
    "DELETE FROM secret WHERE learner = ?",
    "DELETE FROM data_key WHERE learner = ?",
    "DELETE FROM learner WHERE id = ?",
];

impl SqliteStore {
    pub(crate) async fn close_rows(&self, id: &LearnerId, now: Timestamp) -> Inner<bool> {
        let mut write = self.write().await?;
        let there = close(&mut write, id, now).await?;
        write.commit().await?;
        Ok(there)
    }

    pub(crate) async fn erase_rows(&self, id: &LearnerId, now: Timestamp) -> Inner<()> {
        let mut write = self.write().await?;
        let closed =
            sqlx::query_scalar::<_, i64>("SELECT 1 FROM learner WHERE id = ? AND closing = 1")
                .bind(id.as_str())
                .fetch_optional(write.connection())
                .await?;
        if closed.is_none() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO tombstone (repository, id, fence, erased_time) \
             SELECT repository, id, max(fence, status_epoch), ? FROM learner WHERE id = ?",
        )
        .bind(nanos(now))
        .bind(id.as_str())
        .execute(write.connection())
        .await?;
        for statement in ERASE {
            sqlx::query(statement)
                .bind(id.as_str())
                .execute(write.connection())
                .await?;
        }
        write.hint(id);
        write.commit().await?;
        self.forget_log().await
    }

    /// Empties the write-ahead log, so that deleted content is nowhere in the files. A reader that is in the way delays it
    /// to a later checkpoint.
    pub(crate) async fn forget_log(&self) -> Inner<()> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub(crate) async fn unswept(&self, before: Timestamp) -> Inner<Vec<RepositoryId>> {
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(UNSWEPT)
            .bind(nanos(before))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| Ok(RepositoryId(uuid(row)?)))
            .collect()
    }

    pub(crate) async fn mark_swept(&self, repository: RepositoryId) -> Inner<()> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE tombstone SET swept = 1 WHERE repository = ?")
            .bind(repository.0.as_bytes().as_slice())
            .execute(write.connection())
            .await?;
        write.commit().await
    }
}

/// Closes a learner; nothing more comes in, runs or is delivered. `false`: no such learner.
async fn close(write: &mut Write, id: &LearnerId, now: Timestamp) -> Inner<bool> {
    let closed = sqlx::query(
        "UPDATE learner SET closing = 1, fence = max(fence, status_epoch) + 1 \
         WHERE id = ? AND closing = 0",
    )
    .bind(id.as_str())
    .execute(write.connection())
    .await?;
    if closed.rows_affected() == 0 {
        let there: Option<i64> = sqlx::query_scalar("SELECT 1 FROM learner WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(write.connection())
            .await?;
        return Ok(there.is_some());
    }
    let open: Vec<Vec<u8>> = sqlx::query_scalar(OPEN)
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    for turn in open {
        let Some(standing) = write.standing(TurnId(uuid(&turn)?)).await? else {
            continue;
        };
        let timing = standing.turn.timing;
        write
            .end_turn(&standing, Outcome::Failed(&learner_closed()), timing, now)
            .await?;
    }
    for statement in [REVOKE, "DELETE FROM outbox WHERE learner = ?"] {
        sqlx::query(statement)
            .bind(id.as_str())
            .execute(write.connection())
            .await?;
    }
    write.hint(id);
    Ok(true)
}
