//! A learner as rows hold it.

use carrel_core::learner::{Desired, Status};
use carrel_core::{Epoch, NanoUsd, RepositoryId};
use carrel_store::adapter::column::{count, from_json, parsed, parsed_option, small, time, uuid};
use carrel_store::learners::{Alias, Learner};
use sqlx::FromRow;

use crate::fault::Inner;

/// Reads learners; the first argument is the day whose cost is `cost_today`.
macro_rules! select_learner {
    ($tail:literal) => {
        concat!(
            "SELECT l.*, \
             (SELECT json_group_array(json_object('channel', a.channel, 'external_id', a.external_id) \
                ORDER BY a.channel, a.external_id) FROM alias a WHERE a.learner = l.id) AS aliases, \
             (SELECT g.time FROM generation g \
                WHERE g.learner = l.id AND g.generation = l.head_generation) AS head_time, \
             (SELECT c.settled FROM account c WHERE c.learner = l.id AND c.day = ?) AS cost_today \
             FROM learner l ",
            $tail
        )
    };
}
pub(crate) use select_learner;

#[derive(FromRow)]
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
    status_since: Option<i64>,
    status_detail: String,
    status_pod: Option<String>,
    status_start_kind: Option<String>,
    status_young_deaths: i64,
    status_retry_time: Option<i64>,
    status_conditions: String,
    fence: i64,
    repository: Vec<u8>,
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
            status: Status {
                epoch: Epoch(count(self.status_epoch)),
                state: parsed(&self.status_state)?,
                since: self.status_since.map(time),
                detail: self.status_detail,
                pod: self.status_pod.as_deref().map(from_json).transpose()?,
                start_kind: parsed_option(self.status_start_kind.as_deref())?,
                young_deaths: small(self.status_young_deaths),
                retry_time: self.status_retry_time.map(time),
                conditions: from_json(&self.status_conditions)?,
            },
            fence: Epoch(count(self.fence)),
            repository: RepositoryId(uuid(&self.repository)?),
            newest_snapshot: snapshot.zip(self.head_time.map(time)),
            cost_today: NanoUsd(self.cost_today.unwrap_or_default()),
        })
    }
}
