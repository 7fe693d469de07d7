//! How a turn ends: once, by a commit, a failure or a stop, always under the writer's lock.

use carrel_core::event::Reply;
use carrel_core::turn::TurnState;
use carrel_core::{EventVersion, Generation, LearnerId, SnapshotId, TurnId};
use carrel_store::adapter::column::{count, int, to_json};
use carrel_store::adapter::outcome::Outcome;
use carrel_store::adapter::standing::Standing;
use carrel_store::turns::{Failure, Lease, OwnerWrite, Timing, Turn, WEB_CHANNEL};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::turn_row::{TURN, TurnRow};
use crate::write::Write;

pub(crate) const END: &str = "UPDATE turn SET state = ?, reply = ?, failure = ?, snapshot = ?, \
    timing = ?, version = ?, lease_owner = NULL, lease_until = 0 WHERE place = ?";

impl SqliteStore {
    pub(crate) async fn fail_turn(
        &self,
        turn: TurnId,
        lease: Lease,
        failure: &Failure,
        timing: Timing,
        now: Timestamp,
    ) -> Inner<OwnerWrite> {
        let mut write = self.write().await?;
        let Some(standing) = write.standing(turn).await? else {
            return Ok(OwnerWrite::Ended);
        };
        if let Some(refusal) = standing.refusal(lease) {
            return Ok(refusal);
        }
        let timing = standing.timing(timing);
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
        let mut write = self.write().await?;
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
                sqlx::query("UPDATE turn SET stop_requested = 1 WHERE place = ?")
                    .bind(standing.place)
                    .execute(write.connection())
                    .await?;
                write.hint(learner);
            }
        }
        let row: TurnRow = sqlx::query_as(TURN)
            .bind(turn.0.as_bytes().as_slice())
            .fetch_one(write.connection())
            .await?;
        write.commit().await?;
        Ok(Some(row.turn()?))
    }
}

impl Write {
    /// Ends a turn: event, row, and what its channel should deliver.
    pub(crate) async fn end_turn(
        &mut self,
        standing: &Standing,
        outcome: Outcome<'_>,
        timing: Timing,
        now: Timestamp,
    ) -> Inner<EventVersion> {
        let learner = standing.learner();
        let body = outcome.event(standing);
        let version = self.append(learner, &body, now).await?;
        sqlx::query(END)
            .bind(<&str>::from(outcome.state()))
            .bind(outcome.reply().map(to_json).transpose()?)
            .bind(outcome.failure().map(to_json).transpose()?)
            .bind(outcome.snapshot().map(SnapshotId::as_str))
            .bind(to_json(&timing)?)
            .bind(int(version.0))
            .bind(standing.place)
            .execute(self.connection())
            .await?;
        if standing.channel != WEB_CHANNEL {
            self.put_outbox(learner, &standing.channel, &body).await?;
        }
        Ok(version)
    }

    /// Ends a turn that waits, by a wish: it commits nothing, and the head stays.
    pub(crate) async fn stop_waiting(&mut self, standing: &Standing, now: Timestamp) -> Inner<()> {
        let head: i64 = sqlx::query_scalar("SELECT head_generation FROM learner WHERE id = ?")
            .bind(standing.learner().as_str())
            .fetch_one(self.connection())
            .await?;
        sqlx::query("UPDATE turn SET stop_requested = 1 WHERE place = ?")
            .bind(standing.place)
            .execute(self.connection())
            .await?;
        let reply = Reply::default();
        let stopped = Outcome::stopped_waiting(&reply, Generation(count(head)));
        self.end_turn(standing, stopped, standing.turn.timing, now)
            .await?;
        Ok(())
    }
}
