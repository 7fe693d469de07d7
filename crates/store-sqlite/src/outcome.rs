//! How a turn ends: once, by a commit, a failure or a stop, always under the writer's lock.

use carrel_core::event::{EventBody, Reply};
use carrel_core::turn::TurnState;
use carrel_core::{EventVersion, Generation, LearnerId, SnapshotId, TurnId};
use carrel_store::turns::{Failure, Lease, OwnerWrite, Timing, Turn, WEB_CHANNEL};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::column::{count, int, to_json};
use crate::fault::Inner;
use crate::turn_row::{Standing, TURN, TurnRow};
use crate::write::Write;

/// What a turn came to.
pub(crate) enum Outcome<'a> {
    /// It committed, or was stopped before it ran.
    Done {
        stopped: bool,
        reply: &'a Reply,
        snapshot: Option<&'a SnapshotId>,
        generation: Generation,
    },
    /// It commits nothing.
    Failed(&'a Failure),
}

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
        let (state, reply, failure, snapshot) = match &outcome {
            Outcome::Done {
                stopped: true,
                reply,
                snapshot,
                ..
            } => (TurnState::Stopped, Some(*reply), None, *snapshot),
            Outcome::Done {
                reply, snapshot, ..
            } => (TurnState::Done, Some(*reply), None, *snapshot),
            Outcome::Failed(failure) => (TurnState::Failed, None, Some(*failure), None),
        };
        let body = event(standing, &outcome);
        let version = self.append(learner, &body, now).await?;
        sqlx::query(END)
            .bind(<&str>::from(state))
            .bind(reply.map(to_json).transpose()?)
            .bind(failure.map(to_json).transpose()?)
            .bind(snapshot.map(SnapshotId::as_str))
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
        let stopped = Outcome::Done {
            stopped: true,
            reply: &Reply::default(),
            snapshot: None,
            generation: Generation(count(head)),
        };
        self.end_turn(standing, stopped, standing.turn.timing, now)
            .await?;
        Ok(())
    }
}

fn event(standing: &Standing, outcome: &Outcome<'_>) -> EventBody {
    let turn_id = standing.turn.turn_id;
    match outcome {
        Outcome::Done {
            stopped,
            reply,
            snapshot,
            generation,
        } => EventBody::Done {
            turn_id,
            stopped: *stopped,
            reply: (*reply).clone(),
            usage: standing.turn.usage,
            snapshot_id: snapshot.cloned(),
            generation: *generation,
        },
        Outcome::Failed(failure) => EventBody::Failed {
            turn_id,
            code: failure.code,
            detail: failure.detail.clone(),
            retryable: failure.retryable,
            partial_text: failure.partial_text.clone(),
            operator_reason: failure.operator_reason.clone(),
        },
    }
}
