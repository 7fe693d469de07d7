//! Who owns a turn: what waits for an owner, and leases.

use std::collections::HashMap;

use carrel_core::{LearnerId, OwnerId, TurnId};
use carrel_store::adapter::column::{count, from_json, int, nanos, parsed, time};
use carrel_store::turns::{Attachment, Claimed, Lease, Ownership};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgExecutor, Row as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::Inner;
use crate::gather::Gather;
use crate::pool::Pool;
use crate::turn_row::{TurnRow, turn_columns};

/// From learner to learner, and of each the oldest open turn alone: it costs as much as learners have open turns, however many.
pub(crate) const WAITING: &str = "WITH RECURSIVE w AS (\
        (SELECT learner, place FROM turn WHERE state IN ('queued', 'running') \
            ORDER BY learner, place LIMIT 1) \
        UNION ALL SELECT n.* FROM w, LATERAL (SELECT learner, place FROM turn t \
            WHERE t.state IN ('queued', 'running') AND t.learner > w.learner \
            ORDER BY t.learner, t.place LIMIT 1) AS n) \
    SELECT w.learner FROM w WHERE (SELECT t.lease_until FROM turn t WHERE t.place = w.place) <= $1 \
    ORDER BY w.place LIMIT $2";
pub(crate) const WAITING_AMONG: &str = "SELECT n.asked FROM (SELECT a.asked, \
        (SELECT o.place FROM turn o WHERE o.learner = a.asked AND o.state IN ('queued', 'running') \
            ORDER BY o.place LIMIT 1) AS oldest FROM unnest($2::text[]) AS a (asked)) AS n \
    WHERE (SELECT t.lease_until FROM turn t WHERE t.place = n.oldest) <= $1";
pub(crate) const BACKLOG: &str = "SELECT count(*), (SELECT m.sent_time FROM message m WHERE m.place = \
    (SELECT min(place) FROM turn WHERE state IN ('queued', 'running'))) \
    FROM turn WHERE state IN ('queued', 'running')";
/// The oldest open turns of different learners, in the order of places as in [`RENEW`]. Whose lock (`lock_learner`'s) is not free is left out and said. When the oldest
/// turn ends at this moment, nothing is claimed: the hint of its end finds the next one. (That a turn is open is said so that no
/// index of all open turns is walked for it.)
pub(crate) const CLAIM: &str = concat!(
    "WITH k AS MATERIALIZED (SELECT n.*, (SELECT o.place FROM turn o WHERE o.learner = n.asked \
            AND o.state IN ('queued', 'running') ORDER BY o.place LIMIT 1) AS oldest, \
        pg_try_advisory_xact_lock(hashtextextended(n.asked, 0)) AS is_locked \
        FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[]) AS n (asked, owner, now, until) ORDER BY oldest), \
     c AS (UPDATE turn t SET lease_owner = k.owner, lease_generation = t.lease_generation + 1, \
        lease_until = k.until, claimed_time = coalesce(t.claimed_time, k.now), \
        queue_ms = CASE WHEN t.claimed_time IS NULL \
            THEN greatest(k.now / 1000000 - m.sent_time / 1000000, 0) ELSE t.queue_ms END \
     FROM k, message m WHERE k.is_locked AND t.place = k.oldest AND m.place = k.oldest \
     AND t.state NOT IN ('done', 'failed', 'stopped') \
     AND (t.lease_until <= k.now OR t.lease_owner IS NULL OR t.lease_owner = k.owner) RETURNING ",
    turn_columns!(),
    ") SELECT k.asked, k.is_locked, c.* FROM k LEFT JOIN c ON c.place = k.oldest"
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

/// Statements at a time.
const LANES: usize = 2;

/// A learner's oldest turn is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    learner: LearnerId,
    owner: OwnerId,
    now: Timestamp,
    until: Timestamp,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Got {
    Turn(Box<TurnRow>),
    Nothing,
    /// Somebody writes for the learner.
    Busy,
}

/// Claims that are made together.
pub(crate) type Claims = Gather<LearnerId, Wanted, Got>;

/// Starts what claims for those who want at the same time.
pub(crate) fn start(pool: &Pool, tracker: &TaskTracker, cancel: &CancellationToken) -> Claims {
    let pool = pool.clone();
    let work = move |wanted: Vec<Wanted>| {
        let pool = pool.clone();
        async move {
            let mut got = claim(&pool, &wanted).await?;
            let of = |one: &Wanted| got.remove(one.learner.as_str()).unwrap_or(Got::Busy);
            Ok(wanted.iter().map(of).collect())
        }
    };
    Gather::start(LANES, work, tracker, cancel)
}

/// By learner.
async fn claim(
    executor: impl PgExecutor<'_>,
    wanted: &[Wanted],
) -> Result<HashMap<String, Got>, sqlx::Error> {
    fn column<'a, T>(wanted: &'a [Wanted], of: impl Fn(&'a Wanted) -> T) -> Vec<T> {
        wanted.iter().map(of).collect()
    }
    let rows: Vec<PgRow> = sqlx::query(CLAIM)
        .bind(column(wanted, |one| one.learner.as_str()))
        .bind(column(wanted, |one| one.owner.0))
        .bind(column(wanted, |one| nanos(one.now)))
        .bind(column(wanted, |one| nanos(one.until)))
        .fetch_all(executor)
        .await?;
    let got = |row: &PgRow| -> Result<(String, Got), sqlx::Error> {
        let is_locked: bool = row.try_get("is_locked")?;
        let place: Option<i64> = row.try_get("place")?;
        let got = match place {
            Some(_) => Got::Turn(Box::new(TurnRow::from_row(row)?)),
            None if is_locked => Got::Nothing,
            None => Got::Busy,
        };
        Ok((row.try_get("asked")?, got))
    };
    rows.iter().map(got).collect()
}

impl PostgresStore {
    pub(crate) async fn claim_oldest(
        &self,
        learner: &LearnerId,
        owner: OwnerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Inner<Option<Claimed>> {
        let wanted = || Wanted {
            learner: learner.clone(),
            owner,
            now,
            until,
        };
        let mut got = self.claims.ask(learner.clone(), wanted()).await?;
        if matches!(got, Got::Busy) {
            let mut write = self.write(learner).await?;
            let claimed = claim(write.connection(), &[wanted()]).await?;
            write.commit().await?;
            got = claimed.into_values().next().unwrap_or(Got::Nothing);
        }
        let Got::Turn(row) = got else {
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

    pub(crate) async fn waiting_of(
        &self,
        learners: &[LearnerId],
        now: Timestamp,
    ) -> Inner<Vec<LearnerId>> {
        let learners: Vec<&str> = learners.iter().map(LearnerId::as_str).collect();
        let rows: Vec<String> = sqlx::query_scalar(WAITING_AMONG)
            .bind(nanos(now))
            .bind(learners)
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
