//! The append-only log, read. One writer: the order of sequences is the order of commits.

use carrel_core::event::{Cursor, Event, FeedEvent};
use carrel_core::{EventVersion, LearnerId};
use carrel_store::adapter::column::{count, from_json, int, parsed, time};
use carrel_store::{Events, Result};
use sqlx::FromRow;
use tokio::sync::broadcast;

use crate::SqliteStore;
use crate::fault::{Inner, during};

pub(crate) const EVENTS: &str = "SELECT sequence, learner, version, time, body FROM event \
    WHERE learner = ? AND version > ? ORDER BY version LIMIT ?";
pub(crate) const FEED: &str = "SELECT sequence, learner, version, time, body FROM event \
    WHERE sequence > ? ORDER BY sequence LIMIT ?";

#[derive(FromRow)]
struct EventRow {
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
                transaction: 0,
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
impl Events for SqliteStore {
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
                .bind(limit)
                .fetch_all(&self.readers)
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
                .bind(int(after.sequence))
                .bind(limit)
                .fetch_all(&self.readers)
                .await?;
            rows.into_iter()
                .map(EventRow::event)
                .collect::<Inner<Vec<_>>>()
        };
        read.await.map_err(during("reading the log"))
    }

    fn changes(&self) -> broadcast::Receiver<LearnerId> {
        self.changes.subscribe()
    }
}
