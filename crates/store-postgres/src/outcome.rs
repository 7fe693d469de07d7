//! How a turn ends: once, by a commit, a failure or a stop, always under the learner's lock.

use carrel_core::event::Reply;
use carrel_core::turn::TurnState;
use carrel_core::{EventVersion, Generation, LearnerId, SnapshotId, TurnId};
use carrel_store::adapter::column::{count, int, nanos, to_json};
use carrel_store::adapter::outcome::Outcome;
use carrel_store::adapter::standing::Standing;
use carrel_store::turns::{Failure, Lease, OwnerWrite, Timing, Turn, WEB_CHANNEL};
use jiff::Timestamp;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::turn_row::{TURN, TurnRow};
use crate::write::Write;

/// Event, row, and what the turn's channel should deliver.
pub(crate) const END: &str = "WITH l AS (UPDATE learner \
        SET event_version = event_version + 1, last_activity_time = $2 \
        WHERE id = $1 RETURNING id, event_version), \
    e AS (INSERT INTO event (learner, version, time, type, body) \
        SELECT id, event_version, $2, $3, $4::json FROM l), \
    o AS (INSERT INTO outbox (learner, channel, body) \
        SELECT $1, $5, $4::json WHERE $5::text IS NOT NULL) \
    UPDATE turn t SET state = $7, reply = $8::json, failure = $9::json, snapshot = $10, \
        restore_ms = $11, agent_ms = $12, snapshot_ms = $13, version = l.event_version, \
        stop_requested = t.stop_requested OR $14, lease_owner = NULL, lease_until = 0 \
    FROM l WHERE t.place = $6 RETURNING t.version";
pub(crate) const WISH_STOP: &str = "UPDATE turn SET stop_requested = true WHERE place = $1";

impl PostgresStore {
    pub(crate) async fn fail_turn(
        &self,
        turn: TurnId,
        lease: Lease,
        failure: &Failure,
        timing: Timing,
        now: Timestamp,
    ) -> Inner<OwnerWrite> {
        let Some((mut write, standing)) = self.write_turn(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        let outcome = Outcome::Failed(failure);
        let version = write.end_turn(&standing, outcome, timing, now).await?;
        write.commit().await?;
        Ok(OwnerWrite::Written(version))
    }

    pub(crate) async fn want_stop(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        now: Timestamp,
    ) -> Inner<Option<Turn>> {
        let mut write = self.write(learner).await?;
        let standing = write.standing(turn).await?;
        let Some(standing) = standing.filter(|standing| standing.learner() == learner) else {
            return Ok(None);
        };
        match standing.turn.state {
            TurnState::Done | TurnState::Failed | TurnState::Stopped => {
                return Ok(Some(standing.turn));
            }
            TurnState::Queued => write.stop_waiting(&standing, now).await?,
            TurnState::Running => {
                sqlx::query(WISH_STOP)
                    .bind(standing.place)
                    .execute(write.connection())
                    .await?;
                write.hint(learner);
            }
        }
        let row: TurnRow = sqlx::query_as(TURN)
            .bind(turn.0)
            .fetch_one(write.connection())
            .await?;
        write.commit().await?;
        Ok(Some(row.turn()?))
    }
}

impl Write {
    /// Ends a turn.
    pub(crate) async fn end_turn(
        &mut self,
        standing: &Standing,
        outcome: Outcome<'_>,
        timing: Timing,
        now: Timestamp,
    ) -> Inner<EventVersion> {
        let learner = standing.learner();
        let body = outcome.event(standing);
        let kind: &'static str = (&body).into();
        let channel = (standing.channel != WEB_CHANNEL).then_some(&standing.channel);
        let version: i64 = sqlx::query_scalar(END)
            .bind(learner.as_str())
            .bind(nanos(now))
            .bind(kind)
            .bind(to_json(&body)?)
            .bind(channel)
            .bind(standing.place)
            .bind(<&str>::from(outcome.state()))
            .bind(outcome.reply().map(to_json).transpose()?)
            .bind(outcome.failure().map(to_json).transpose()?)
            .bind(outcome.snapshot().map(SnapshotId::as_str))
            .bind(int(timing.restore))
            .bind(int(timing.agent))
            .bind(int(timing.snapshot))
            .bind(outcome.state() == TurnState::Stopped)
            .fetch_one(self.connection())
            .await?;
        self.hint(learner);
        Ok(EventVersion(count(version)))
    }

    /// Ends a turn that waits, by a wish: it commits nothing, and the head stays.
    pub(crate) async fn stop_waiting(&mut self, standing: &Standing, now: Timestamp) -> Inner<()> {
        let head: i64 = sqlx::query_scalar("SELECT head_generation FROM learner WHERE id = $1")
            .bind(standing.learner().as_str())
            .fetch_one(self.connection())
            .await?;
        let reply = Reply::default();
        let stopped = Outcome::stopped_waiting(&reply, Generation(count(head)));
        self.end_turn(standing, stopped, standing.turn.timing, now)
            .await?;
        Ok(())
    }
}
