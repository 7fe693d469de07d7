//! The append-only log, read.

use carrel_core::event::{Cursor, Event, FeedEvent};
use carrel_core::{EventVersion, LearnerId};
use carrel_store::adapter::column::{count, from_json, int, parsed, time};
use carrel_store::{Events, Result};
use sqlx::FromRow;
use tokio::sync::broadcast;

use crate::PostgresStore;
use crate::fault::{Inner, during};

pub(crate) const EVENTS: &str = "SELECT 0::bigint AS tx, sequence, learner, version, time, body::text \
    FROM event WHERE learner = $1 AND version > $2 ORDER BY version LIMIT $3";
/// Ends before the oldest transaction that still runs, in one statement: the bound and the rows are of one snapshot. What has
/// a higher number and is committed already waits for it, so that no place ever shows before an earlier one is final.
pub(crate) const FEED: &str = "SELECT tx::text::bigint AS tx, sequence, learner, version, time, body::text \
    FROM event WHERE (tx, sequence) > ($1::text::xid8, $2) \
    AND tx < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY event.tx, sequence LIMIT $3";

#[derive(FromRow)]
struct EventRow {
    tx: i64,
    sequence: i64,
    learner: String,
    version: i64,
    time: i64,
    body: String,
}

impl EventRow {
    fn event(self) -> Inner<FeedEvent> {
        Ok(FeedEvent {
            cursor: Cursor {
                transaction: count(self.tx),
                sequence: count(self.sequence),
            },
            event: Event {
                learner: parsed(&self.learner)?,
                version: EventVersion(count(self.version)),
                time: time(self.time),
                body: from_json(&self.body)?,
            },
        })
    }
}

#[async_trait::async_trait]
impl Events for PostgresStore {
    async fn events(
        &self,
        learner: &LearnerId,
        after: EventVersion,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let read = async {
            let rows: Vec<EventRow> = sqlx::query_as(EVENTS)
                .bind(learner.as_str())
                .bind(int(after.0))
                .bind(i64::from(limit))
                .fetch_all(&self.turns)
                .await?;
            rows.into_iter()
                .map(|row| row.event().map(|fed| fed.event))
                .collect::<Inner<Vec<_>>>()
        };
        read.await.map_err(during("reading a learner's events"))
    }

    async fn feed(&self, after: Cursor, limit: u32) -> Result<Vec<FeedEvent>> {
        let read = async {
            let rows: Vec<EventRow> = sqlx::query_as(FEED)
                .bind(after.transaction.to_string())
                .bind(int(after.sequence))
                .bind(i64::from(limit))
                .fetch_all(&self.reports)
                .await?;
            rows.into_iter()
                .map(EventRow::event)
                .collect::<Inner<Vec<_>>>()
        };
        read.await.map_err(during("reading the log"))
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.hints.receiver()
    }
}
