//! Writing under a learner's lock: in a transaction, or in one statement.
//!
//! Every write of a learner's rows holds the learner's lock (`lock_learner`), taken before anything that gives the transaction
//! its number: so numbers of a learner's events rise with their versions. A transaction takes one learner's lock, and takes it
//! first; `set_aliases` takes one more after it and then waits for no learner. So there is no circle to wait in.
//!
//! One statement that waits for the lock reads with a snapshot that is older than the lock. Of the row that it updates it sees
//! the newest version all the same; of everything else it sees what was before it waited. Where that matters the statement asks
//! that the learner's row is `unchanged` since its snapshot, and does nothing if it is not; then it is done again in a transaction
//! that has the lock already, where it cannot fail that way.

use std::time::Duration;

use carrel_core::event::EventBody;
use carrel_core::{Epoch, EventVersion, Generation, LearnerId, RepositoryId};
use carrel_store::adapter::column::{count, int, nanos, parsed_option, to_json};
use carrel_store::heads::Head;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::hints::Hints;
use crate::pool::{Bounded, Lease, Pool};

/// How long a transaction whose caller has gone keeps its connection.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(2);

/// The condition that the learner `$1` is as the statement's snapshot shows it: whatever appends an event or reserves money
/// changes it.
macro_rules! unchanged {
    () => {
        "(l.event_version, l.reservations) = \
         (SELECT s.event_version, s.reservations FROM learner s WHERE s.id = $1)"
    };
}
pub(crate) use unchanged;

/// A writing transaction under a learner's lock. Dropped without [`Write::commit`], nothing of it happened.
pub(crate) struct Write {
    lease: Option<Lease>,
    tracker: TaskTracker,
    changed: Option<LearnerId>,
    hints: Hints,
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
    pub(crate) head: Head,
    pub(crate) repository: RepositoryId,
}

#[derive(FromRow)]
pub(crate) struct FenceRow {
    fence: i64,
    head_generation: i64,
    head_snapshot: Option<String>,
    repository: Uuid,
}

impl FenceRow {
    /// Whether an epoch raises the fence.
    pub(crate) fn is_below(&self, epoch: Epoch) -> bool {
        self.fence < int(epoch.0)
    }

    /// Where an epoch stands; without an epoch it stands at the fence.
    pub(crate) fn at_fence(self, epoch: Option<Epoch>) -> Inner<AtFence> {
        let fence = Epoch(count(self.fence));
        if epoch.is_some_and(|epoch| epoch < fence) {
            return Ok(AtFence::Stale(fence));
        }
        Ok(AtFence::Current(Fenced {
            head: Head {
                generation: Generation(count(self.head_generation)),
                snapshot: parsed_option(self.head_snapshot.as_deref())?,
            },
            repository: RepositoryId(self.repository),
        }))
    }
}

pub(crate) const FENCE: &str = "SELECT fence, head_generation, head_snapshot, repository \
    FROM learner WHERE id = $1 AND NOT closing";
pub(crate) const RAISE: &str = "UPDATE learner SET fence = $2 WHERE id = $1 AND fence < $2";
pub(crate) const APPEND: &str = "WITH l AS (UPDATE learner SET event_version = event_version + 1, \
    last_activity_time = coalesce($2, last_activity_time) WHERE id = $1 RETURNING id, event_version) \
    INSERT INTO event (learner, version, time, type, body) \
    SELECT id, event_version, $3, $4, $5::json FROM l RETURNING version";

impl PostgresStore {
    /// Begins a transaction under a learner's lock, in one message; waits for those before it. A caller that goes away while it
    /// waits drops what has begun, and that is rolled back.
    pub(crate) async fn write(&self, learner: &LearnerId) -> Inner<Write> {
        self.write_on(&self.turns, learner).await
    }

    /// The same on a connection of another pool.
    pub(crate) async fn write_on(&self, pool: &Pool, learner: &LearnerId) -> Inner<Write> {
        let quoted = learner.as_str().replace('\'', "''");
        let mut write = Write {
            lease: Some(pool.acquire().await?),
            tracker: self.tracker.clone(),
            changed: None,
            hints: self.hints.clone(),
        };
        let begin = format!("BEGIN; SELECT lock_learner('{quoted}')");
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(write.connection())
            .await?;
        Ok(write)
    }
}

impl Write {
    /// The connection, for a statement.
    pub(crate) fn connection(&mut self) -> Bounded<'_> {
        let lease = self.lease.as_mut();
        lease
            .expect("it is there until the transaction ends")
            .bounded()
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
        let kind: &'static str = body.into();
        let version: i64 = sqlx::query_scalar(APPEND)
            .bind(learner.as_str())
            .bind(active.then(|| nanos(now)))
            .bind(nanos(now))
            .bind(kind)
            .bind(to_json(body)?)
            .fetch_one(self.connection())
            .await?;
        self.hint(learner);
        Ok(EventVersion(count(version)))
    }

    /// Says after the commit that something changed for the learner.
    pub(crate) fn hint(&mut self, learner: &LearnerId) {
        self.changed = Some(learner.clone());
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
        if let Some(epoch) = epoch
            && row.is_below(epoch)
        {
            self.raise_fence(learner, epoch).await?;
        }
        row.at_fence(epoch)
    }

    /// Raises the fence.
    pub(crate) async fn raise_fence(&mut self, learner: &LearnerId, epoch: Epoch) -> Inner<()> {
        sqlx::query(RAISE)
            .bind(learner.as_str())
            .bind(int(epoch.0))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Makes it all durable, then gives the hint.
    ///
    /// An error does not say that nothing was written: the connection may be lost after the database has committed. Whoever
    /// asked asks again with the same ids, and finds either.
    pub(crate) async fn commit(mut self) -> Inner<()> {
        sqlx::raw_sql("COMMIT").execute(self.connection()).await?;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        if let Some(learner) = self.changed.take() {
            self.hints.give(&learner);
        }
        Ok(())
    }
}

impl Drop for Write {
    /// Rolls back what did not commit. A connection on which that fails is not used again, nor one whose last statement is still
    /// under way when its caller goes: closed, it ends that within the interval at which the server looks for its client.
    fn drop(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            self.tracker.spawn(async move {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(lease.bounded());
                if let Ok(Ok(_)) = timeout(ROLLED_BACK_WITHIN, rollback).await {
                    lease.give_back();
                }
            });
        }
    }
}
