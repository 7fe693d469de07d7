//! Outcomes that a channel should bring to its learner.

use carrel_core::LearnerId;
use carrel_core::event::EventBody;
use carrel_store::adapter::column::{from_json, nanos, parsed, to_json};
use carrel_store::turns::OutboxItem;
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::write::Write;

pub(crate) const CLAIM_OUTBOX: &str = "UPDATE outbox SET claimed_until = ? WHERE id IN \
    (SELECT id FROM outbox WHERE channel = ? AND claimed_until <= ? ORDER BY id LIMIT ?) \
    RETURNING id, learner, body";

impl SqliteStore {
    pub(crate) async fn claim_deliveries(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Inner<Vec<OutboxItem>> {
        let mut write = self.write().await?;
        let mut rows: Vec<(i64, String, String)> = sqlx::query_as(CLAIM_OUTBOX)
            .bind(nanos(until))
            .bind(channel)
            .bind(nanos(now))
            .bind(limit)
            .fetch_all(write.connection())
            .await?;
        write.commit().await?;
        rows.sort_unstable_by_key(|(id, ..)| *id);
        let item = |(id, learner, body): (i64, String, String)| {
            Ok(OutboxItem {
                id,
                learner: parsed(&learner)?,
                body: from_json(&body)?,
            })
        };
        rows.into_iter().map(item).collect()
    }

    pub(crate) async fn end_delivery(&self, item: i64) -> Inner<()> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM outbox WHERE id = ?")
            .bind(item)
            .execute(write.connection())
            .await?;
        write.commit().await
    }
}

impl Write {
    /// Leaves an outcome for its channel, in the transaction that decides it.
    pub(crate) async fn put_outbox(
        &mut self,
        learner: &LearnerId,
        channel: &str,
        body: &EventBody,
    ) -> Inner<()> {
        sqlx::query("INSERT INTO outbox (learner, channel, body) VALUES (?, ?, ?)")
            .bind(learner.as_str())
            .bind(channel)
            .bind(to_json(body)?)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
