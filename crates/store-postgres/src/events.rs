//! The append-only log, read.

use std::collections::HashMap;

use carrel_core::event::{Cursor, Event, FeedEvent};
use carrel_core::{EventVersion, LearnerId};
use carrel_store::adapter::column::{count, from_json, int, parsed, time};
use carrel_store::{Events, Result};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::gather::Gather;
use crate::pool::Pool;

/// Statements at a time.
const LANES: usize = 2;

pub(crate) const EVENTS: &str = "SELECT q.number, 0::bigint AS tx, e.* \
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS q (learner, after, most, number), \
    LATERAL (SELECT sequence, learner, version, time, body::text FROM event \
        WHERE learner = q.learner AND version > q.after ORDER BY version LIMIT q.most) AS e ORDER BY e.version";
/// Ends before the oldest transaction that still runs, in one statement: the bound and the rows are of one snapshot. What has
/// a higher number and is committed already waits for it, so that no place ever shows before an earlier one is final.
pub(crate) const FEED: &str = "SELECT tx::text::bigint AS tx, sequence, learner, version, time, body::text \
    FROM event WHERE (tx, sequence) > ($1::text::xid8, $2) \
    AND tx < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY event.tx, sequence LIMIT $3";

#[derive(Debug, FromRow)]
pub(crate) struct EventRow {
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

/// Of whose log what comes after a version is wanted, and how much at most.
type After = (LearnerId, EventVersion, u32);
/// Logs that are read together.
pub(crate) type Logs = Gather<LearnerId, After, Vec<EventRow>>;

/// Starts what reads logs that are asked for at the same time.
pub(crate) fn start(pool: &Pool, tracker: &TaskTracker, cancel: &CancellationToken) -> Logs {
    let pool = pool.clone();
    let work = move |asked: Vec<After>| {
        let pool = pool.clone();
        async move {
            let learners: Vec<&str> = asked.iter().map(|(id, ..)| id.as_str()).collect();
            let versions: Vec<i64> = asked.iter().map(|(_, after, _)| int(after.0)).collect();
            let limits: Vec<i64> = asked.iter().map(|(.., most)| i64::from(*most)).collect();
            let rows: Vec<PgRow> = sqlx::query(EVENTS)
                .bind(learners)
                .bind(versions)
                .bind(limits)
                .fetch_all(&pool)
                .await?;
            let mut read: HashMap<i64, Vec<EventRow>> = HashMap::new();
            for row in rows {
                let of = read.entry(row.try_get("number")?).or_default();
                of.push(EventRow::from_row(&row)?);
            }
            let numbers = (1..).take(asked.len());
            Ok(numbers
                .map(|number| read.remove(&number).unwrap_or_default())
                .collect())
        }
    };
    Gather::start(LANES, work, tracker, cancel)
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
            let after = (learner.clone(), after, limit);
            let rows = self.logs.ask(learner.clone(), after).await?;
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
