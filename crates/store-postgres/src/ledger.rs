//! Money: a reservation is held against the budgets' accounts until it is settled, once.

use carrel_core::{ClassName, Epoch, LearnerId, NanoUsd, ReservationId, TurnId};
use carrel_store::adapter::column::{int, nanos, parsed, parsed_option};
use carrel_store::adapter::period;
use carrel_store::adapter::room::{Spent, tightest};
use carrel_store::ledger::{NewReservation, Reserved, Settlement, UsageBy, UsageRow};
use carrel_store::{Ledger, Result};
use jiff::Timestamp;
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::write::{AtFence, unchanged};

/// Reservations looked for at once by a sweep.
const SWEPT_AT_ONCE: i64 = 100;

/// Decides and holds. The sums are those of the snapshot, and right because the learner is unchanged since.
pub(crate) const RESERVE: &str = concat!(
    "WITH locked AS (SELECT lock_learner($1)), \
     l AS (UPDATE learner l SET fence = greatest(l.fence, $2), reservations = l.reservations + 1 \
        FROM locked WHERE l.id = $1 AND NOT l.closing AND ($2::bigint IS NULL OR l.fence <= $2) AND ",
    unchanged!(),
    "   RETURNING l.id, l.class), \
     s AS (SELECT l.id, l.class, coalesce(sum(a.held + a.settled), 0)::bigint AS in_month, \
            coalesce(sum(a.held + a.settled) FILTER (WHERE a.day = $6), 0)::bigint AS in_day \
        FROM l LEFT JOIN account a ON a.learner = $1 AND a.day >= $7 AND a.day < $8 \
        GROUP BY l.id, l.class), \
     t AS (SELECT place, turn_id FROM turn \
        WHERE learner = $1 AND state = 'running' AND ($2 IS NULL OR epoch = $2)), \
     r AS (INSERT INTO reservation (id, learner, class, model, turn, day, amount, time) \
        SELECT $3, id, class, $4, (SELECT place FROM t), $6, $5, $11 FROM s \
        WHERE $5 <= greatest(coalesce($9 - in_day, $5), 0) \
        AND $5 <= greatest(coalesce($10 - in_month, $5), 0) RETURNING learner, day, amount), \
     h AS (INSERT INTO account AS a (learner, day, held, settled) \
        SELECT learner, day, amount, 0 FROM r \
        ON CONFLICT (learner, day) DO UPDATE SET held = a.held + excluded.held), \
     c AS (UPDATE turn SET cost = turn.cost + r.amount FROM r, t WHERE turn.place = t.place) \
     SELECT in_day, in_month, EXISTS (SELECT FROM r) AS held, \
        (SELECT turn_id FROM t) AS turn_id FROM s"
);
/// What was reserved under an id before, and the sums with it.
pub(crate) const RESERVED: &str = "SELECT true AS held, t.turn_id, \
        coalesce(sum(a.held + a.settled), 0)::bigint AS in_month, \
        coalesce(sum(a.held + a.settled) FILTER (WHERE a.day = $3), 0)::bigint AS in_day \
    FROM reservation r LEFT JOIN turn t ON t.place = r.turn \
    LEFT JOIN account a ON a.learner = r.learner AND a.day >= $4 AND a.day < $5 \
    WHERE r.id = $2 AND r.learner = $1 GROUP BY t.turn_id";
/// Settles with all that follows: account, turn, event and read model. What a reply was said to have cost is not changed
/// afterwards. Of two that settle the same one, the second waits for the lock and finds nothing to delete.
pub(crate) const SETTLE: &str = "WITH locked AS (SELECT lock_learner(learner) FROM reservation WHERE id = $1), \
    r AS (DELETE FROM reservation r USING locked WHERE r.id = $1 \
        RETURNING r.learner, r.class, r.model, r.turn, r.day, r.amount), \
    a AS (UPDATE account a SET held = a.held - r.amount, settled = a.settled + $2 \
        FROM r WHERE a.learner = r.learner AND a.day = r.day), \
    t AS (UPDATE turn t SET input_tokens = t.input_tokens + $3, \
            output_tokens = t.output_tokens + $4, cost = t.cost + $2 - r.amount \
        FROM r WHERE t.place = r.turn AND t.state NOT IN ('done', 'stopped')), \
    u AS (INSERT INTO usage AS u \
            (hour, learner, class, model, calls, input_tokens, output_tokens, cost) \
        SELECT $6, learner, class, model, 1, $3, $4, $2 FROM r \
        WHERE $2 <> 0 OR $3 <> 0 OR $4 <> 0 \
        ON CONFLICT (hour, learner, class, model) DO UPDATE SET calls = u.calls + 1, \
            input_tokens = u.input_tokens + excluded.input_tokens, \
            output_tokens = u.output_tokens + excluded.output_tokens, \
            cost = u.cost + excluded.cost), \
    l AS (UPDATE learner l SET event_version = l.event_version + 1 FROM r \
        WHERE l.id = r.learner RETURNING l.id, l.event_version) \
    INSERT INTO event (learner, version, time, type, body) \
    SELECT l.id, l.event_version, $5, 'charged', json_build_object('type', 'charged', \
        'model', r.model, 'class', r.class, 'cost', $2, 'input_tokens', $3, 'output_tokens', $4) \
    FROM l, r RETURNING learner";
pub(crate) const ORPHANS: &str =
    "SELECT id, amount FROM reservation WHERE time < $1 ORDER BY time LIMIT $2";

#[derive(FromRow)]
struct Decided {
    held: bool,
    in_day: i64,
    in_month: i64,
    turn_id: Option<Uuid>,
}

impl Decided {
    fn spent(&self) -> Spent {
        Spent {
            day: NanoUsd(self.in_day),
            month: NanoUsd(self.in_month),
        }
    }

    /// The answer to a reservation of which so much is not in the sums yet.
    fn answer(&self, new: &NewReservation, uncounted: NanoUsd, now: Timestamp) -> Reserved {
        match tightest(new, self.spent(), now) {
            Some(room) if !self.held => room.exhausted(),
            room => Reserved::Held {
                turn: self.turn_id.map(TurnId),
                left: room.map(|room| room.left_after(uncounted)),
            },
        }
    }
}

impl PostgresStore {
    async fn refused_by(&self, learner: &LearnerId, epoch: Epoch) -> Inner<Option<Epoch>> {
        Ok(match self.stand_at_fence(learner, epoch).await? {
            AtFence::Stale(fence) => Some(fence),
            AtFence::Current(_) | AtFence::NoLearner => None,
        })
    }

    async fn hold(&self, new: &NewReservation, now: Timestamp) -> Inner<Reserved> {
        match self.try_to_hold(new, now).await {
            // An equal call may have come before, whose answer was lost.
            Err(fault) if fault.is_taken() => self.held_before(new, now).await?.ok_or(fault),
            Ok(exhausted @ Reserved::Exhausted { .. }) => {
                Ok(self.held_before(new, now).await?.unwrap_or(exhausted))
            }
            tried => tried,
        }
    }

    async fn try_to_hold(&self, new: &NewReservation, now: Timestamp) -> Inner<Reserved> {
        if let Some(decided) = decide(&self.turns, new, now).await? {
            return Ok(decided.answer(new, new.amount, now));
        }
        // Refused, or somebody wrote for this learner meanwhile: decided under the lock.
        let mut write = self.write(&new.learner).await?;
        if let Some(decided) = decide(write.connection(), new, now).await? {
            write.commit().await?;
            return Ok(decided.answer(new, new.amount, now));
        }
        Ok(match write.pass_fence(&new.learner, new.epoch).await? {
            AtFence::Stale(fence) => Reserved::StaleEpoch { fence },
            AtFence::NoLearner | AtFence::Current(_) => Reserved::NoLearner,
        })
    }

    async fn held_before(&self, new: &NewReservation, now: Timestamp) -> Inner<Option<Reserved>> {
        let month = period::month(now);
        let decided: Option<Decided> = sqlx::query_as(RESERVED)
            .bind(new.learner.as_str())
            .bind(new.id.0)
            .bind(period::day(now))
            .bind(month.start)
            .bind(month.end)
            .fetch_optional(&self.turns)
            .await?;
        Ok(decided.map(|decided| decided.answer(new, NanoUsd::ZERO, now)))
    }

    async fn settle_one(
        &self,
        id: ReservationId,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Inner<bool> {
        let learner: Option<String> = sqlx::query_scalar(SETTLE)
            .bind(id.0)
            .bind(settlement.cost.0)
            .bind(int(settlement.input_tokens))
            .bind(int(settlement.output_tokens))
            .bind(nanos(now))
            .bind(period::hour(now.as_second()))
            .fetch_optional(&self.turns)
            .await?;
        if let Some(learner) = &learner {
            self.hints.give(&parsed(learner)?);
        }
        Ok(learner.is_some())
    }

    async fn sweep(&self, before: Timestamp, now: Timestamp) -> Inner<u64> {
        let mut swept = 0;
        loop {
            let orphans: Vec<(Uuid, i64)> = sqlx::query_as(ORPHANS)
                .bind(nanos(before))
                .bind(SWEPT_AT_ONCE)
                .fetch_all(&self.turns)
                .await?;
            if orphans.is_empty() {
                return Ok(swept);
            }
            for (id, amount) in orphans {
                let whole = Settlement {
                    cost: NanoUsd(amount),
                    ..Settlement::default()
                };
                swept += u64::from(self.settle_one(ReservationId(id), &whole, now).await?);
            }
        }
    }
}

/// `None`: nothing was decided, because of the fence or the learner, or because the learner changed since the snapshot.
async fn decide(
    executor: impl PgExecutor<'_>,
    new: &NewReservation,
    now: Timestamp,
) -> Inner<Option<Decided>> {
    let month = period::month(now);
    Ok(sqlx::query_as(RESERVE)
        .bind(new.learner.as_str())
        .bind(new.epoch.map(|epoch| int(epoch.0)))
        .bind(new.id.0)
        .bind(&new.model)
        .bind(new.amount.0)
        .bind(period::day(now))
        .bind(month.start)
        .bind(month.end)
        .bind(new.per_day.map(|limit| limit.0))
        .bind(new.per_month.map(|limit| limit.0))
        .bind(nanos(now))
        .fetch_optional(executor)
        .await?)
}

#[async_trait::async_trait]
impl Ledger for PostgresStore {
    async fn reserve(&self, new: &NewReservation, now: Timestamp) -> Result<Reserved> {
        self.hold(new, now).await.map_err(during("reserving money"))
    }

    async fn pass_fence(&self, learner: &LearnerId, epoch: Epoch) -> Result<Option<Epoch>> {
        self.refused_by(learner, epoch)
            .await
            .map_err(during("comparing an epoch with the fence"))
    }

    async fn settle(
        &self,
        id: ReservationId,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Result<bool> {
        self.settle_one(id, settlement, now)
            .await
            .map_err(during("settling a reservation"))
    }

    async fn sweep_reservations(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        self.sweep(before, now)
            .await
            .map_err(during("settling orphaned reservations"))
    }

    async fn usage(
        &self,
        by: UsageBy,
        learner: Option<&LearnerId>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<UsageRow>> {
        self.read_usage(by, learner, since, until)
            .await
            .map_err(during("reading usage"))
    }

    async fn rebuild_usage(&self) -> Result<()> {
        self.fold_usage_anew()
            .await
            .map_err(during("rebuilding usage"))
    }

    async fn class_of(&self, learner: &LearnerId) -> Result<Option<ClassName>> {
        let read = async {
            let class: Option<String> =
                sqlx::query_scalar("SELECT class FROM learner WHERE id = $1")
                    .bind(learner.as_str())
                    .fetch_optional(&self.turns)
                    .await?;
            Inner::Ok(parsed_option(class.as_deref())?)
        };
        read.await.map_err(during("reading a learner's class"))
    }
}
