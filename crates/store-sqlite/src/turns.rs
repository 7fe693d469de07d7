//! The inbox and its turns: the port's methods, and the plain reads.

use carrel_core::learner::StartKind;
use carrel_core::turn::{AfterDeath, Death};
use carrel_core::{Epoch, EventVersion, LearnerId, MessageId, OwnerId, TurnId};
use carrel_store::adapter::outcome::Died;
use carrel_store::turns::{
    Accepted, Attachment, Begun, Claimed, Failure, Lease, NewMessage, OutboxItem, OwnerWrite,
    Ownership, Timing, ToolUse, Turn,
};
use carrel_store::{Result, Turns};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::{Inner, during};
use crate::turn_row::{TURN, TurnRow, select_turn};

pub(crate) const HISTORY: &str =
    select_turn!("WHERE t.learner = ? AND t.place < ? ORDER BY t.place DESC LIMIT ?");
pub(crate) const LAST_ENDED: &str = select_turn!(
    "WHERE t.learner = ? AND t.state NOT IN ('queued', 'running') ORDER BY t.place DESC LIMIT 1"
);
pub(crate) const PLACE: &str = "SELECT place FROM message WHERE message_id = ? AND learner = ?";
pub(crate) const REPLY_FILE: &str = "SELECT f.name, f.media_type, f.data FROM turn t \
    JOIN file f ON f.place = t.place AND f.side = 'reply' \
    WHERE t.turn_id = ? AND t.learner = ? AND f.number = ?";

impl SqliteStore {
    async fn read_turn(&self, learner: &LearnerId, turn: TurnId) -> Inner<Option<Turn>> {
        let row: Option<TurnRow> = sqlx::query_as(TURN)
            .bind(turn.0.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await?;
        let turn = row.map(TurnRow::turn).transpose()?;
        Ok(turn.filter(|turn| turn.learner == *learner))
    }

    /// A message that is not there is before nothing.
    async fn read_history(
        &self,
        learner: &LearnerId,
        before: Option<MessageId>,
        limit: u32,
    ) -> Inner<Vec<Turn>> {
        let before = match before {
            None => i64::MAX,
            Some(message) => sqlx::query_scalar(PLACE)
                .bind(message.0.as_bytes().as_slice())
                .bind(learner.as_str())
                .fetch_optional(&self.readers)
                .await?
                .unwrap_or_default(),
        };
        let rows: Vec<TurnRow> = sqlx::query_as(HISTORY)
            .bind(learner.as_str())
            .bind(before)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter().rev().map(TurnRow::turn).collect()
    }

    async fn read_reply_file(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        place: u32,
    ) -> Inner<Option<Attachment>> {
        let row: Option<(String, String, Vec<u8>)> = sqlx::query_as(REPLY_FILE)
            .bind(turn.0.as_bytes().as_slice())
            .bind(learner.as_str())
            .bind(place)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|(name, media_type, data)| Attachment {
            name,
            media_type,
            data,
        }))
    }
}

#[async_trait::async_trait]
impl Turns for SqliteStore {
    async fn accept(&self, message: &NewMessage, now: Timestamp) -> Result<Accepted> {
        self.accept_message(message, now)
            .await
            .map_err(during("accepting a message"))
    }

    async fn turn(&self, learner: &LearnerId, turn: TurnId) -> Result<Option<Turn>> {
        self.read_turn(learner, turn)
            .await
            .map_err(during("reading a turn"))
    }

    async fn history(
        &self,
        learner: &LearnerId,
        before: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<Turn>> {
        self.read_history(learner, before, limit)
            .await
            .map_err(during("reading a learner's history"))
    }

    async fn last_ended(&self, learner: &LearnerId) -> Result<Option<Turn>> {
        let read = async {
            let row: Option<TurnRow> = sqlx::query_as(LAST_ENDED)
                .bind(learner.as_str())
                .fetch_optional(&self.readers)
                .await?;
            row.map(TurnRow::turn).transpose()
        };
        read.await
            .map_err(during("reading a learner's last outcome"))
    }

    async fn reply_file(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        place: u32,
    ) -> Result<Option<Attachment>> {
        self.read_reply_file(learner, turn, place)
            .await
            .map_err(during("reading a file of a reply"))
    }

    async fn waiting(&self, now: Timestamp, limit: u32) -> Result<Vec<LearnerId>> {
        self.waiting_learners(now, limit)
            .await
            .map_err(during("listing turns that wait"))
    }

    async fn waiting_among(
        &self,
        learners: &[LearnerId],
        now: Timestamp,
    ) -> Result<Vec<LearnerId>> {
        self.waiting_of(learners, now)
            .await
            .map_err(during("looking for turns that wait"))
    }

    async fn backlog(&self) -> Result<(u64, Option<Timestamp>)> {
        self.open_turns().await.map_err(during("counting turns"))
    }

    async fn claim(
        &self,
        learner: &LearnerId,
        owner: OwnerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Claimed>> {
        self.claim_oldest(learner, owner, now, until)
            .await
            .map_err(during("claiming a turn"))
    }

    async fn owner(&self, learner: &LearnerId, now: Timestamp) -> Result<Ownership> {
        self.owner_of_oldest(learner, now)
            .await
            .map_err(during("asking who runs a learner's turn"))
    }

    async fn renew(&self, leases: &[(TurnId, Lease)], until: Timestamp) -> Result<Vec<TurnId>> {
        self.renew_leases(leases, until)
            .await
            .map_err(during("renewing leases"))
    }

    async fn release_leases_except(&self, owner: OwnerId) -> Result<()> {
        self.release_others(owner)
            .await
            .map_err(during("releasing leases"))
    }

    async fn begin_attempt(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        start_kind: StartKind,
        now: Timestamp,
    ) -> Result<OwnerWrite<Begun>> {
        self.begin(turn, lease, epoch, start_kind, now)
            .await
            .map_err(during("beginning an attempt"))
    }

    async fn tool(
        &self,
        turn: TurnId,
        lease: Lease,
        tool: &ToolUse,
        now: Timestamp,
    ) -> Result<OwnerWrite> {
        self.append_tool(turn, lease, tool, now)
            .await
            .map_err(during("keeping a tool use"))
    }

    async fn attempt_died(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        death: Death,
        reason: &str,
        partial_text: &str,
        now: Timestamp,
    ) -> Result<OwnerWrite<(EventVersion, AfterDeath)>> {
        let died = Died {
            epoch,
            death,
            reason,
            partial_text,
        };
        self.count_death(turn, lease, died, now)
            .await
            .map_err(during("counting a death"))
    }

    async fn attempt_refused(
        &self,
        turn: TurnId,
        lease: Lease,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<OwnerWrite<()>> {
        self.take_back(turn, lease, epoch, now)
            .await
            .map_err(during("taking an attempt back"))
    }

    async fn fail(
        &self,
        turn: TurnId,
        lease: Lease,
        failure: &Failure,
        timing: Timing,
        now: Timestamp,
    ) -> Result<OwnerWrite> {
        self.fail_turn(turn, lease, failure, timing, now)
            .await
            .map_err(during("failing a turn"))
    }

    async fn request_stop(
        &self,
        learner: &LearnerId,
        turn: TurnId,
        now: Timestamp,
    ) -> Result<Option<Turn>> {
        self.want_stop(learner, turn, now)
            .await
            .map_err(during("stopping a turn"))
    }

    async fn claim_outbox(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<OutboxItem>> {
        self.claim_deliveries(channel, now, until, limit)
            .await
            .map_err(during("claiming deliveries"))
    }

    async fn delivered(&self, item: i64) -> Result<()> {
        self.end_delivery(item)
            .await
            .map_err(during("ending a delivery"))
    }
}
