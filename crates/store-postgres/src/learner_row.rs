//! A learner as rows hold it.

use std::collections::HashMap;

use carrel_core::learner::{Desired, Status};
use carrel_core::{Epoch, LearnerId, NanoUsd, RepositoryId};
use carrel_store::adapter::column::{count, from_json, parsed, parsed_option, time};
use carrel_store::learners::{Alias, Learner};
use sqlx::FromRow;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::fault::Inner;
use crate::gather::Gather;
use crate::pool::Pool;

/// Statements at a time.
const LANES: usize = 2;

/// Reads learners; the first argument is the day whose cost is `cost_today`.
macro_rules! select_learner {
    ($tail:literal) => {
        concat!(
            "SELECT l.id, l.class, l.created_time, l.last_activity_time, l.closing, \
             l.desired_state, l.wake_after_epoch, l.status_epoch, l.status_state, l.status::text, \
             l.fence, l.repository, l.head_snapshot, \
             (SELECT coalesce(json_agg(json_build_object('channel', a.channel, 'external_id', \
                a.external_id) ORDER BY a.channel, a.external_id), '[]')::text \
                FROM alias a WHERE a.learner = l.id) AS aliases, \
             (SELECT g.time FROM generation g \
                WHERE g.learner = l.id AND g.generation = l.head_generation) AS head_time, \
             (SELECT c.settled FROM account c WHERE c.learner = l.id AND c.day = $1) AS cost_today \
             FROM learner l ",
            $tail
        )
    };
}
pub(crate) use select_learner;

pub(crate) const LEARNERS: &str = select_learner!("WHERE l.id = ANY($2)");

/// A learner, and the day whose cost is wanted.
type Asked = (LearnerId, i64);
/// Learners that are read together.
pub(crate) type Rows = Gather<LearnerId, Asked, Option<LearnerRow>>;

/// Starts what reads learners that are asked for at the same time.
pub(crate) fn start(pool: &Pool, tracker: &TaskTracker, cancel: &CancellationToken) -> Rows {
    let pool = pool.clone();
    let work = move |asked: Vec<Asked>| {
        let pool = pool.clone();
        async move {
            let ids: Vec<&str> = asked.iter().map(|(id, _)| id.as_str()).collect();
            // At midnight the newest day is everybody's: it is when they are read.
            let day = asked.iter().map(|(_, day)| *day).max();
            let rows: Vec<LearnerRow> = sqlx::query_as(LEARNERS)
                .bind(day)
                .bind(&ids)
                .fetch_all(&pool)
                .await?;
            let read = rows.into_iter().map(|row| (row.id.clone(), row));
            let mut read: HashMap<String, LearnerRow> = read.collect();
            Ok(ids.into_iter().map(|id| read.remove(id)).collect())
        }
    };
    Gather::start(LANES, work, tracker, cancel)
}

#[derive(Debug, FromRow)]
pub(crate) struct LearnerRow {
    id: String,
    class: String,
    created_time: i64,
    last_activity_time: Option<i64>,
    closing: bool,
    desired_state: String,
    wake_after_epoch: Option<i64>,
    status_epoch: i64,
    status_state: String,
    status: String,
    fence: i64,
    repository: Uuid,
    head_snapshot: Option<String>,
    aliases: String,
    head_time: Option<i64>,
    cost_today: Option<i64>,
}

impl LearnerRow {
    pub(crate) fn closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn aliases(&self) -> Inner<Vec<Alias>> {
        Ok(from_json(&self.aliases)?)
    }

    pub(crate) fn class(&self) -> &str {
        &self.class
    }

    /// The learner that the row holds.
    pub(crate) fn learner(self) -> Inner<Learner> {
        let snapshot = parsed_option(self.head_snapshot.as_deref())?;
        let status: Status = from_json(&self.status)?;
        Ok(Learner {
            id: parsed(&self.id)?,
            class: parsed(&self.class)?,
            aliases: from_json(&self.aliases)?,
            created_time: time(self.created_time),
            last_activity_time: self.last_activity_time.map(time),
            desired: Desired {
                state: parsed(&self.desired_state)?,
                wake_after_epoch: self.wake_after_epoch.map(|epoch| Epoch(count(epoch))),
                deleting: self.closing,
            },
            // What is compared has columns of its own.
            status: Status {
                epoch: Epoch(count(self.status_epoch)),
                state: parsed(&self.status_state)?,
                ..status
            },
            fence: Epoch(count(self.fence)),
            repository: RepositoryId(self.repository),
            newest_snapshot: snapshot.zip(self.head_time.map(time)),
            cost_today: NanoUsd(self.cost_today.unwrap_or_default()),
        })
    }
}
