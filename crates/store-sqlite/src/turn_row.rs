//! A turn as rows hold it: whole for readers, and its standing for those who change it.

use carrel_core::event::Usage;
use carrel_core::turn::{Deaths, TurnState};
use carrel_core::{Epoch, EventVersion, LeaseGeneration, MessageId, NanoUsd, OwnerId, TurnId};
use carrel_store::adapter::column::{
    count, from_json, int, parsed, parsed_option, small, time, uuid,
};
use carrel_store::adapter::standing::Standing;
use carrel_store::turns::{Lease, Message, Turn};
use sqlx::FromRow;

use crate::fault::Inner;
use crate::write::Write;

/// Reads turns with their messages.
macro_rules! select_turn {
    ($tail:literal) => {
        concat!(
            "SELECT t.*, m.message_id, m.text, m.channel, m.sent_time, \
             (SELECT json_group_array(json_array(f.name, f.media_type) ORDER BY f.number) \
                FROM file f WHERE f.place = t.place AND f.side = 'message') AS files \
             FROM turn t JOIN message m ON m.place = t.place ",
            $tail
        )
    };
}
pub(crate) use select_turn;

#[derive(FromRow)]
pub(crate) struct TurnRow {
    pub(crate) place: i64,
    turn_id: Vec<u8>,
    learner: String,
    state: String,
    version: i64,
    epoch: Option<i64>,
    attempts: i64,
    infrastructure_deaths: i64,
    agent_deaths: i64,
    stop_requested: bool,
    lease_owner: Option<Vec<u8>>,
    lease_generation: i64,
    lease_until: i64,
    pub(crate) claimed_time: Option<i64>,
    started_version: i64,
    start_kind: Option<String>,
    input_tokens: i64,
    output_tokens: i64,
    cost: i64,
    reply: Option<String>,
    failure: Option<String>,
    snapshot: Option<String>,
    timing: String,
    message_id: Vec<u8>,
    text: String,
    pub(crate) channel: String,
    sent_time: i64,
    files: String,
}

pub(crate) const TURN: &str = select_turn!("WHERE t.turn_id = ?");

impl TurnRow {
    /// The turn that the row holds.
    pub(crate) fn turn(self) -> Inner<Turn> {
        let state: TurnState = parsed(&self.state)?;
        Ok(Turn {
            turn_id: TurnId(uuid(&self.turn_id)?),
            learner: parsed(&self.learner)?,
            message: Message {
                message_id: MessageId(uuid(&self.message_id)?),
                text: self.text,
                attachments: from_json(&self.files)?,
                sent_time: time(self.sent_time),
            },
            state,
            epoch: self.epoch.map(|epoch| Epoch(count(epoch))),
            attempts: small(self.attempts),
            deaths: Deaths {
                infrastructure: small(self.infrastructure_deaths),
                agent: small(self.agent_deaths),
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
            timing: from_json(&self.timing)?,
            version: EventVersion(count(self.version)),
        })
    }

    /// The standing that the row holds.
    pub(crate) fn standing(self) -> Inner<Standing> {
        let owner = self.lease_owner.as_deref().map(uuid).transpose()?;
        Ok(Standing {
            place: self.place,
            channel: self.channel.clone(),
            claimed_time: self.claimed_time.map(time),
            started_version: EventVersion(count(self.started_version)),
            lease: owner.map(|owner| Lease {
                owner: OwnerId(owner),
                generation: LeaseGeneration(count(self.lease_generation)),
            }),
            turn: self.turn()?,
        })
    }

    /// Whether another owner's lease is live.
    pub(crate) fn is_leased_to_another(&self, owner: OwnerId, now: i64) -> bool {
        self.lease_until > now
            && self
                .lease_owner
                .as_deref()
                .is_some_and(|holder| holder != owner.0.as_bytes())
    }
}

impl Write {
    /// A turn's standing, for a decision in this transaction.
    pub(crate) async fn standing(&mut self, turn: TurnId) -> Inner<Option<Standing>> {
        let row: Option<TurnRow> = sqlx::query_as(TURN)
            .bind(turn.0.as_bytes().as_slice())
            .fetch_optional(self.connection())
            .await?;
        row.map(TurnRow::standing).transpose()
    }

    /// Keeps the number of the turn's newest event.
    pub(crate) async fn put_version(&mut self, place: i64, version: EventVersion) -> Inner<()> {
        sqlx::query("UPDATE turn SET version = ? WHERE place = ?")
            .bind(int(version.0))
            .bind(place)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
