//! Outcomes that a channel should bring to its learner.

use carrel_store::adapter::column::{from_json, nanos, parsed};
use carrel_store::turns::OutboxItem;
use jiff::Timestamp;

use crate::PostgresStore;
use crate::fault::Inner;

/// Items that another claims at this moment are passed over, not waited for.
pub(crate) const CLAIM_OUTBOX: &str = "UPDATE outbox SET claimed_until = $1 WHERE id = ANY (ARRAY( \
        SELECT id FROM outbox WHERE channel = $2 AND claimed_until <= $3 \
        ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED)) RETURNING id, learner, body::text";
pub(crate) const DELIVERED: &str = "DELETE FROM outbox WHERE id = $1";

impl PostgresStore {
    pub(crate) async fn claim_deliveries(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Inner<Vec<OutboxItem>> {
        let mut rows: Vec<(i64, String, String)> = sqlx::query_as(CLAIM_OUTBOX)
            .bind(nanos(until))
            .bind(channel)
            .bind(nanos(now))
            .bind(i64::from(limit))
            .fetch_all(&self.turns)
            .await?;
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
        sqlx::query(DELIVERED)
            .bind(item)
            .execute(&self.turns)
            .await?;
        Ok(())
    }
}
