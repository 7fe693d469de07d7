//! Who owns a turn: what waits for an owner, and leases.

use carrel_core::{LearnerId, OwnerId, TurnId};
use carrel_store::adapter::column::{count, from_json, int, nanos, parsed, time};
use carrel_store::turns::{Attachment, Claimed, Lease, Ownership};
use jiff::Timestamp;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::turn_row::{TurnRow, turn_columns};

pub(crate) const WAITING: &str = "SELECT t.learner FROM turn t \
    WHERE t.state IN ('queued', 'running') AND t.lease_until <= $1 \
    AND NOT EXISTS (SELECT FROM turn o WHERE o.learner = t.learner AND o.place < t.place \
        AND o.state IN ('queued', 'running')) ORDER BY t.place LIMIT $2";
pub(crate) const BACKLOG: &str = "SELECT count(*), (SELECT m.sent_time FROM message m WHERE m.place = \
    (SELECT min(place) FROM turn WHERE state IN ('queued', 'running'))) \
    FROM turn WHERE state IN ('queued', 'running')";
/// When the oldest turn ends while this waits for the lock, nothing is claimed: the hint of its end finds the next one.
pub(crate) const CLAIM: &str = concat!(
    "WITH locked AS (SELECT lock_learner($1)) \
     UPDATE turn t SET lease_owner = $2, lease_generation = t.lease_generation + 1, \
        lease_until = $4, claimed_time = coalesce(t.claimed_time, $3), \
        queue_ms = CASE WHEN t.claimed_time IS NULL \
            THEN greatest($3 / 1000000 - m.sent_time / 1000000, 0) ELSE t.queue_ms END \
     FROM locked, message m WHERE t.place = (SELECT o.place FROM turn o WHERE o.learner = $1 \
        AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1) \
     AND m.place = t.place AND t.state IN ('queued', 'running') \
     AND (t.lease_until <= $3 OR t.lease_owner IS NULL OR t.lease_owner = $2) RETURNING ",
    turn_columns!()
);
pub(crate) const OWNER: &str = "SELECT CASE WHEN t.lease_until > $2 THEN t.lease_owner END FROM turn t \
    WHERE t.place = (SELECT o.place FROM turn o WHERE o.learner = $1 \
        AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1)";
pub(crate) const ATTACHMENTS: &str = "SELECT about::text, data FROM file \
    WHERE place = $1 AND side = 'message' ORDER BY number";
/// In the order of places, so that two who renew never wait for each other. A turn that a writer holds is waited for.
pub(crate) const RENEW: &str = "WITH l AS (SELECT t.place FROM turn t \
        JOIN unnest($2::uuid[], $3::uuid[], $4::bigint[]) AS r (turn_id, owner, generation) \
        ON t.turn_id = r.turn_id AND t.lease_owner = r.owner AND t.lease_generation = r.generation \
        ORDER BY t.place FOR NO KEY UPDATE OF t) \
    UPDATE turn t SET lease_until = $1 FROM l WHERE t.place = l.place RETURNING t.turn_id";
pub(crate) const RELEASE: &str = "WITH l AS (SELECT place FROM turn \
        WHERE lease_owner IS NOT NULL AND lease_owner <> $1 ORDER BY place FOR NO KEY UPDATE) \
    UPDATE turn t SET lease_owner = NULL, lease_until = 0 FROM l WHERE t.place = l.place";

impl PostgresStore {
    pub(crate) async fn claim_oldest(
        &self,
        learner: &LearnerId,
        owner: OwnerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Inner<Option<Claimed>> {
        let row: Option<TurnRow> = sqlx::query_as(CLAIM)
            .bind(learner.as_str())
            .bind(owner.0)
            .bind(nanos(now))
            .bind(nanos(until))
            .fetch_optional(&self.turns)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let (place, generation) = (row.place, row.lease_generation());
        let turn = row.turn()?;
        let attachments = if turn.message.attachments.is_empty() {
            Vec::new()
        } else {
            self.attachments(place).await?
        };
        Ok(Some(Claimed {
            turn,
            lease: Lease { owner, generation },
            attachments,
        }))
    }

    pub(crate) async fn owner_of_oldest(
        &self,
        learner: &LearnerId,
        now: Timestamp,
    ) -> Inner<Ownership> {
        let owner: Option<Option<Uuid>> = sqlx::query_scalar(OWNER)
            .bind(learner.as_str())
            .bind(nanos(now))
            .fetch_optional(&self.turns)
            .await?;
        Ok(Ownership::of(owner.map(|owner| owner.map(OwnerId))))
    }

    async fn attachments(&self, place: i64) -> Inner<Vec<Attachment>> {
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(ATTACHMENTS)
            .bind(place)
            .fetch_all(&self.turns)
            .await?;
        rows.into_iter().map(attachment).collect()
    }

    pub(crate) async fn renew_leases(
        &self,
        leases: &[(TurnId, Lease)],
        until: Timestamp,
    ) -> Inner<Vec<TurnId>> {
        let column = |of: fn(&(TurnId, Lease)) -> Uuid| leases.iter().map(of).collect::<Vec<_>>();
        let generations: Vec<i64> = leases
            .iter()
            .map(|(_, lease)| int(lease.generation.0))
            .collect();
        let renewed: Vec<Uuid> = sqlx::query_scalar(RENEW)
            .bind(nanos(until))
            .bind(column(|(turn, _)| turn.0))
            .bind(column(|(_, lease)| lease.owner.0))
            .bind(generations)
            .fetch_all(&self.turns)
            .await?;
        let turns = leases.iter().map(|(turn, _)| *turn);
        Ok(turns.filter(|turn| !renewed.contains(&turn.0)).collect())
    }

    pub(crate) async fn release_others(&self, owner: OwnerId) -> Inner<()> {
        sqlx::query(RELEASE)
            .bind(owner.0)
            .execute(&self.turns)
            .await?;
        Ok(())
    }

    pub(crate) async fn waiting_learners(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Inner<Vec<LearnerId>> {
        let rows: Vec<String> = sqlx::query_scalar(WAITING)
            .bind(nanos(now))
            .bind(i64::from(limit))
            .fetch_all(&self.turns)
            .await?;
        rows.iter().map(|id| Ok(parsed(id)?)).collect()
    }

    pub(crate) async fn open_turns(&self) -> Inner<(u64, Option<Timestamp>)> {
        let (open, oldest): (i64, Option<i64>) =
            sqlx::query_as(BACKLOG).fetch_one(&self.reports).await?;
        Ok((count(open), oldest.map(time)))
    }
}

/// A file from its columns.
pub(crate) fn attachment((about, data): (String, Vec<u8>)) -> Inner<Attachment> {
    let (name, media_type) = from_json(&about)?;
    Ok(Attachment {
        name,
        media_type,
        data,
    })
}
