//! One writing transaction: the append of events, the fence, and the hint after the commit.

use carrel_core::event::EventBody;
use carrel_core::{ClassName, Epoch, EventVersion, Generation, LearnerId, RepositoryId};
use carrel_store::adapter::column::{count, int, nanos, parsed, parsed_option, to_json, uuid};
use carrel_store::heads::Head;
use jiff::Timestamp;
use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};
use tokio::sync::broadcast;

use crate::SqliteStore;
use crate::fault::Inner;

/// A writing transaction. Dropped without [`Write::commit`], nothing of it happened.
pub(crate) struct Write {
    transaction: Transaction<'static, Sqlite>,
    changed: Vec<LearnerId>,
    changes: broadcast::Sender<LearnerId>,
}

/// Where an incarnation stands at the fence.
pub(crate) enum AtFence {
    /// Its epoch is current.
    Current(Fenced),
    /// It is below the fence.
    Stale(Epoch),
    /// No such learner, or it is being erased.
    NoLearner,
}

/// What is read of a learner at the fence.
pub(crate) struct Fenced {
    pub(crate) class: ClassName,
    pub(crate) head: Head,
    pub(crate) repository: RepositoryId,
}

#[derive(FromRow)]
struct FenceRow {
    class: String,
    fence: i64,
    head_generation: i64,
    head_snapshot: Option<String>,
    repository: Vec<u8>,
}

pub(crate) const FENCE: &str = "SELECT class, fence, head_generation, head_snapshot, repository \
    FROM learner WHERE id = ? AND closing = 0";
pub(crate) const NEXT_VERSION: &str = "UPDATE learner SET event_version = event_version + 1, \
    last_activity_time = coalesce(?, last_activity_time) WHERE id = ? RETURNING event_version";

impl SqliteStore {
    /// Begins a writing transaction; waits for those before it.
    pub(crate) async fn write(&self) -> Inner<Write> {
        Ok(Write {
            transaction: self.writer.begin_with("BEGIN IMMEDIATE").await?,
            changed: Vec::new(),
            changes: self.changes.clone(),
        })
    }
}

impl Write {
    /// The connection, for a statement.
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Appends an event; a message that comes or a turn that ends is the learner's activity.
    pub(crate) async fn append(
        &mut self,
        learner: &LearnerId,
        body: &EventBody,
        now: Timestamp,
    ) -> Inner<EventVersion> {
        let active = matches!(
            body,
            EventBody::Queued { .. } | EventBody::Done { .. } | EventBody::Failed { .. }
        );
        let version: i64 = sqlx::query_scalar(NEXT_VERSION)
            .bind(active.then(|| nanos(now)))
            .bind(learner.as_str())
            .fetch_one(self.connection())
            .await?;
        let kind: &'static str = body.into();
        sqlx::query(
            "INSERT INTO event (learner, version, time, type, body) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(learner.as_str())
        .bind(version)
        .bind(nanos(now))
        .bind(kind)
        .bind(to_json(body)?)
        .execute(self.connection())
        .await?;
        self.hint(learner);
        Ok(EventVersion(count(version)))
    }

    /// Says after the commit that something changed for a learner.
    pub(crate) fn hint(&mut self, learner: &LearnerId) {
        if self.changed.last() != Some(learner) {
            self.changed.push(learner.clone());
        }
    }

    /// Compares an incarnation's epoch with the fence and raises the fence to it; without an epoch, only reads.
    pub(crate) async fn pass_fence(
        &mut self,
        learner: &LearnerId,
        epoch: Option<Epoch>,
    ) -> Inner<AtFence> {
        let row: Option<FenceRow> = sqlx::query_as(FENCE)
            .bind(learner.as_str())
            .fetch_optional(self.connection())
            .await?;
        let Some(row) = row else {
            return Ok(AtFence::NoLearner);
        };
        let fence = Epoch(count(row.fence));
        let epoch = epoch.unwrap_or(fence);
        if epoch < fence {
            return Ok(AtFence::Stale(fence));
        }
        if epoch > fence {
            sqlx::query("UPDATE learner SET fence = ? WHERE id = ?")
                .bind(int(epoch.0))
                .bind(learner.as_str())
                .execute(self.connection())
                .await?;
        }
        Ok(AtFence::Current(Fenced {
            class: parsed(&row.class)?,
            head: Head {
                generation: Generation(count(row.head_generation)),
                snapshot: parsed_option(row.head_snapshot.as_deref())?,
            },
            repository: RepositoryId(uuid(&row.repository)?),
        }))
    }

    /// Makes it all durable, then gives the hints.
    pub(crate) async fn commit(self) -> Inner<()> {
        self.transaction.commit().await?;
        for learner in self.changed {
            // Nobody listening is no fault: whoever comes later reads the log.
            drop(self.changes.send(learner));
        }
        Ok(())
    }
}
