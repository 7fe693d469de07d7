//! A turn as rows hold it: whole for readers, and its standing for those who change it.

use carrel_core::event::Usage;
use carrel_core::turn::{Deaths, TurnState};
use carrel_core::{
    Epoch, EventVersion, LearnerId, LeaseGeneration, MessageId, NanoUsd, OwnerId, TurnId,
};
use carrel_store::adapter::column::{count, from_json, parsed, parsed_option, small, time};
use carrel_store::adapter::standing::Standing;
use carrel_store::turns::{Lease, Message, Timing, Turn};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::write::Write;

/// The columns of a turn `t` with its message `m`.
macro_rules! turn_columns {
    () => {
        "t.place, t.turn_id, t.learner, t.state, t.version, t.epoch, t.attempts, \
         t.infrastructure_deaths, t.agent_deaths, t.stop_requested, t.lease_owner, \
         t.lease_generation, t.claimed_time, t.started_version, t.start_kind, t.input_tokens, \
         t.output_tokens, t.cost, t.reply::text, t.failure::text, t.snapshot, t.queue_ms, \
         t.wake_ms, t.restore_ms, t.agent_ms, t.snapshot_ms, m.message_id, m.text, m.channel, \
         m.sent_time, (SELECT coalesce(json_agg(f.about ORDER BY f.number), '[]')::text \
            FROM file f WHERE f.place = t.place AND f.side = 'message') AS files"
    };
}
pub(crate) use turn_columns;

/// Reads turns with their messages.
macro_rules! select_turn {
    ($tail:literal) => {
        concat!(
            "SELECT ",
            $crate::turn_row::turn_columns!(),
            " FROM turn t JOIN message m ON m.place = t.place ",
            $tail
        )
    };
}
pub(crate) use select_turn;

#[derive(Debug, FromRow)]
pub(crate) struct TurnRow {
    pub(crate) place: i64,
    turn_id: Uuid,
    learner: String,
    state: String,
    version: i64,
    epoch: Option<i64>,
    attempts: i32,
    infrastructure_deaths: i32,
    agent_deaths: i32,
    stop_requested: bool,
    lease_owner: Option<Uuid>,
    lease_generation: i64,
    claimed_time: Option<i64>,
    started_version: i64,
    start_kind: Option<String>,
    input_tokens: i64,
    output_tokens: i64,
    cost: i64,
    reply: Option<String>,
    failure: Option<String>,
    snapshot: Option<String>,
    queue_ms: i64,
    wake_ms: i64,
    restore_ms: i64,
    agent_ms: i64,
    snapshot_ms: i64,
    message_id: Uuid,
    text: String,
    channel: String,
    sent_time: i64,
    files: String,
}

pub(crate) const TURN: &str = select_turn!("WHERE t.turn_id = $1");
pub(crate) const WHOSE: &str = "SELECT learner FROM turn WHERE turn_id = $1";

impl TurnRow {
    /// The turn that the row holds.
    pub(crate) fn turn(self) -> Inner<Turn> {
        let state: TurnState = parsed(&self.state)?;
        Ok(Turn {
            turn_id: TurnId(self.turn_id),
            learner: parsed(&self.learner)?,
            message: Message {
                message_id: MessageId(self.message_id),
                text: self.text,
                attachments: from_json(&self.files)?,
                sent_time: time(self.sent_time),
            },
            state,
            epoch: self.epoch.map(|epoch| Epoch(count(epoch))),
            attempts: small(self.attempts.into()),
            deaths: Deaths {
                infrastructure: small(self.infrastructure_deaths.into()),
                agent: small(self.agent_deaths.into()),
            },
            stop_requested: self.stop_requested,
            stopped: state == TurnState::Stopped,
            reply: self.reply.as_deref().map(from_json).transpose()?,
            usage: Usage {
                input_tokens: count(self.input_tokens),
                output_tokens: count(self.output_tokens),
                cost_nano_usd: NanoUsd(self.cost),
            },
            failure: self.failure.as_deref().map(from_json).transpose()?,
            snapshot_id: parsed_option(self.snapshot.as_deref())?,
            start_kind: parsed_option(self.start_kind.as_deref())?,
            timing: Timing {
                queue: count(self.queue_ms),
                wake: count(self.wake_ms),
                restore: count(self.restore_ms),
                agent: count(self.agent_ms),
                snapshot: count(self.snapshot_ms),
            },
            version: EventVersion(count(self.version)),
        })
    }

    /// The lease's number, for a turn that was just claimed.
    pub(crate) fn lease_generation(&self) -> LeaseGeneration {
        LeaseGeneration(count(self.lease_generation))
    }

    /// The standing that the row holds.
    pub(crate) fn standing(self) -> Inner<Standing> {
        let generation = self.lease_generation();
        Ok(Standing {
            place: self.place,
            channel: self.channel.clone(),
            claimed_time: self.claimed_time.map(time),
            started_version: EventVersion(count(self.started_version)),
            lease: self.lease_owner.map(|owner| Lease {
                owner: OwnerId(owner),
                generation,
            }),
            turn: self.turn()?,
        })
    }
}

impl PostgresStore {
    /// Begins a transaction under the lock of a turn's learner; the turn as it stands then. `None`: no such turn.
    pub(crate) async fn write_turn(&self, turn: TurnId) -> Inner<Option<(Write, Standing)>> {
        let Some(learner) = whose(&self.turns, turn).await? else {
            return Ok(None);
        };
        let mut write = self.write(&learner).await?;
        let standing = write.standing(turn).await?;
        Ok(standing.map(|standing| (write, standing)))
    }
}

/// A turn never changes hands, so this may be read before the lock.
async fn whose(executor: impl PgExecutor<'_>, turn: TurnId) -> Inner<Option<LearnerId>> {
    let learner: Option<String> = sqlx::query_scalar(WHOSE)
        .bind(turn.0)
        .fetch_optional(executor)
        .await?;
    Ok(parsed_option(learner.as_deref())?)
}

impl Write {
    /// A turn's standing, for a decision in this transaction.
    pub(crate) async fn standing(&mut self, turn: TurnId) -> Inner<Option<Standing>> {
        let row: Option<TurnRow> = sqlx::query_as(TURN)
            .bind(turn.0)
            .fetch_optional(self.connection())
            .await?;
        row.map(TurnRow::standing).transpose()
    }
}
