//! Who owns a turn: what waits for an owner, and leases.

use carrel_core::{LearnerId, LeaseGeneration, OwnerId, TurnId};
use carrel_store::adapter::column::{count, int, nanos, parsed, time, to_json, uuid};
use carrel_store::adapter::standing::milliseconds;
use carrel_store::turns::{Attachment, Claimed, Lease, Ownership, Timing};
use jiff::Timestamp;

use crate::SqliteStore;
use crate::fault::Inner;
use crate::turn_row::{TurnRow, select_turn};
use crate::write::Write;

pub(crate) const WAITING: &str = "SELECT t.learner FROM turn t \
    WHERE t.state IN ('queued', 'running') AND t.lease_until <= ? \
    AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.learner = t.learner AND o.place < t.place \
        AND o.state IN ('queued', 'running')) ORDER BY t.place LIMIT ?";
pub(crate) const WAITING_AMONG: &str = "SELECT j.value FROM json_each(?2) j \
    WHERE (SELECT o.lease_until FROM turn o WHERE o.learner = j.value \
        AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1) <= ?1";
pub(crate) const BACKLOG: &str = "SELECT count(*), (SELECT m.sent_time FROM message m WHERE m.place = \
    (SELECT min(place) FROM turn WHERE state IN ('queued', 'running'))) \
    FROM turn WHERE state IN ('queued', 'running')";
pub(crate) const OLDEST: &str = select_turn!(
    "WHERE t.place = (SELECT o.place FROM turn o WHERE o.learner = ? \
     AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1)"
);
pub(crate) const OWNER: &str = "SELECT CASE WHEN t.lease_until > ?2 THEN t.lease_owner END FROM turn t \
    WHERE t.place = (SELECT o.place FROM turn o WHERE o.learner = ?1 \
        AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1)";
pub(crate) const LEASE: &str = "UPDATE turn SET lease_owner = ?, lease_generation = lease_generation + 1, \
    lease_until = ?, claimed_time = ?, timing = ? WHERE place = ? RETURNING lease_generation";
pub(crate) const RENEW: &str = "UPDATE turn SET lease_until = ? \
    WHERE turn_id = ? AND lease_owner = ? AND lease_generation = ?";
pub(crate) const RELEASE: &str = "UPDATE turn SET lease_owner = NULL, lease_until = 0 \
    WHERE lease_owner IS NOT NULL AND lease_owner <> ?";

impl SqliteStore {
    pub(crate) async fn owner_of_oldest(
        &self,
        learner: &LearnerId,
        now: Timestamp,
    ) -> Inner<Ownership> {
        let owner: Option<Option<Vec<u8>>> = sqlx::query_scalar(OWNER)
            .bind(learner.as_str())
            .bind(nanos(now))
            .fetch_optional(&self.readers)
            .await?;
        let owner = owner
            .map(|owner| owner.as_deref().map(uuid).transpose())
            .transpose()?;
        Ok(Ownership::of(owner.map(|owner| owner.map(OwnerId))))
    }

    pub(crate) async fn claim_oldest(
        &self,
        learner: &LearnerId,
        owner: OwnerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Inner<Option<Claimed>> {
        let mut write = self.write().await?;
        let row: Option<TurnRow> = sqlx::query_as(OLDEST)
            .bind(learner.as_str())
            .fetch_optional(write.connection())
            .await?;
        let Some(row) = row.filter(|row| !row.is_leased_to_another(owner, nanos(now))) else {
            return Ok(None);
        };
        let (place, claimed_time) = (row.place, row.claimed_time.map(time));
        let mut turn = row.turn()?;
        if claimed_time.is_none() {
            turn.timing.queue = milliseconds(turn.message.sent_time, now);
        }
        let generation = lease(
            &mut write,
            place,
            owner,
            until,
            claimed_time.unwrap_or(now),
            turn.timing,
        )
        .await?;
        let attachments = if turn.message.attachments.is_empty() {
            Vec::new()
        } else {
            attachments(&mut write, place).await?
        };
        write.commit().await?;
        Ok(Some(Claimed {
            turn,
            lease: Lease { owner, generation },
            attachments,
        }))
    }

    pub(crate) async fn renew_leases(
        &self,
        leases: &[(TurnId, Lease)],
        until: Timestamp,
    ) -> Inner<Vec<TurnId>> {
        let mut write = self.write().await?;
        let mut gone = Vec::new();
        for (turn, lease) in leases {
            let renewed = sqlx::query(RENEW)
                .bind(nanos(until))
                .bind(turn.0.as_bytes().as_slice())
                .bind(lease.owner.0.as_bytes().as_slice())
                .bind(int(lease.generation.0))
                .execute(write.connection())
                .await?;
            if renewed.rows_affected() == 0 {
                gone.push(*turn);
            }
        }
        write.commit().await?;
        Ok(gone)
    }

    pub(crate) async fn release_others(&self, owner: OwnerId) -> Inner<()> {
        let mut write = self.write().await?;
        sqlx::query(RELEASE)
            .bind(owner.0.as_bytes().as_slice())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    pub(crate) async fn waiting_learners(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Inner<Vec<LearnerId>> {
        let rows: Vec<String> = sqlx::query_scalar(WAITING)
            .bind(nanos(now))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|id| Ok(parsed(id)?)).collect()
    }

    pub(crate) async fn waiting_of(
        &self,
        learners: &[LearnerId],
        now: Timestamp,
    ) -> Inner<Vec<LearnerId>> {
        let rows: Vec<String> = sqlx::query_scalar(WAITING_AMONG)
            .bind(nanos(now))
            .bind(to_json(&learners)?)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|id| Ok(parsed(id)?)).collect()
    }

    pub(crate) async fn open_turns(&self) -> Inner<(u64, Option<Timestamp>)> {
        let (open, oldest): (i64, Option<i64>) =
            sqlx::query_as(BACKLOG).fetch_one(&self.readers).await?;
        Ok((count(open), oldest.map(time)))
    }
}

async fn lease(
    write: &mut Write,
    place: i64,
    owner: OwnerId,
    until: Timestamp,
    claimed_time: Timestamp,
    timing: Timing,
) -> Inner<LeaseGeneration> {
    let generation: i64 = sqlx::query_scalar(LEASE)
        .bind(owner.0.as_bytes().as_slice())
        .bind(nanos(until))
        .bind(nanos(claimed_time))
        .bind(to_json(&timing)?)
        .bind(place)
        .fetch_one(write.connection())
        .await?;
    Ok(LeaseGeneration(count(generation)))
}

async fn attachments(write: &mut Write, place: i64) -> Inner<Vec<Attachment>> {
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT name, media_type, data FROM file \
         WHERE place = ? AND side = 'message' ORDER BY number",
    )
    .bind(place)
    .fetch_all(write.connection())
    .await?;
    let attachment = |(name, media_type, data)| Attachment {
        name,
        media_type,
        data,
    };
    Ok(rows.into_iter().map(attachment).collect())
}
