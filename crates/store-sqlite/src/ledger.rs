//! Money: a reservation is held against the budgets' accounts until it is settled, once.

use carrel_core::event::EventBody;
use carrel_core::{ClassName, Epoch, LearnerId, NanoUsd, ReservationId, TurnId};
use carrel_store::adapter::column::{int, nanos, parsed, parsed_option, uuid};
use carrel_store::adapter::period;
use carrel_store::adapter::room::{Room, Spent, tightest};
use carrel_store::ledger::{Left, NewReservation, Reserved, Settlement, UsageBy, UsageRow};
use carrel_store::{Ledger, Result};
use jiff::Timestamp;
use sqlx::FromRow;

use crate::SqliteStore;
use crate::fault::{Inner, during};
use crate::write::{AtFence, Write};

/// Reservations settled in one transaction of a sweep.
const SWEPT_AT_ONCE: u32 = 100;

pub(crate) const SPENT: &str = "SELECT coalesce(sum(held + settled), 0), \
    coalesce(sum(CASE WHEN day = ? THEN held + settled END), 0) \
    FROM account WHERE learner = ? AND day >= ? AND day < ?";
pub(crate) const RUNNING: &str = "SELECT place, turn_id FROM turn WHERE learner = ?1 \
    AND state = 'running' AND (?2 IS NULL OR epoch = ?2)";
pub(crate) const HELD: &str = "SELECT t.turn_id FROM reservation r \
    LEFT JOIN turn t ON t.place = r.turn WHERE r.id = ? AND r.learner = ?";
pub(crate) const HOLD: &str = "INSERT INTO account (learner, day, held, settled) VALUES (?, ?, ?, 0) \
    ON CONFLICT (learner, day) DO UPDATE SET held = held + excluded.held";
pub(crate) const SETTLE: &str = "DELETE FROM reservation WHERE id = ? \
    RETURNING learner, class, model, turn, day, amount";
pub(crate) const CHARGE: &str = "UPDATE account SET held = held - ?, settled = settled + ? \
    WHERE learner = ? AND day = ?";
/// What a reply was said to have cost is not changed afterwards.
pub(crate) const COUNT: &str = "UPDATE turn SET input_tokens = input_tokens + ?, \
    output_tokens = output_tokens + ?, cost = cost + ? \
    WHERE place = ? AND state NOT IN ('done', 'stopped')";
pub(crate) const ORPHANS: &str =
    "SELECT id, amount FROM reservation WHERE time < ? ORDER BY time LIMIT ?";

#[derive(FromRow)]
struct Held {
    learner: String,
    class: String,
    model: String,
    turn: Option<i64>,
    day: i64,
    amount: i64,
}

impl SqliteStore {
    async fn refused_by(&self, learner: &LearnerId, epoch: Epoch) -> Inner<Option<Epoch>> {
        let mut write = self.write().await?;
        let refused_by = match write.pass_fence(learner, Some(epoch)).await? {
            AtFence::Stale(fence) => Some(fence),
            AtFence::Current(_) | AtFence::NoLearner => None,
        };
        write.commit().await?;
        Ok(refused_by)
    }

    async fn hold(&self, new: &NewReservation, now: Timestamp) -> Inner<Reserved> {
        let mut write = self.write().await?;
        let class = match write.pass_fence(&new.learner, new.epoch).await? {
            AtFence::NoLearner => return Ok(Reserved::NoLearner),
            AtFence::Stale(fence) => return Ok(Reserved::StaleEpoch { fence }),
            AtFence::Current(fenced) => fenced.class,
        };
        let room = bound(&mut write, new, now).await?;
        let before: Option<Option<Vec<u8>>> = sqlx::query_scalar(HELD)
            .bind(new.id.0.as_bytes().as_slice())
            .bind(new.learner.as_str())
            .fetch_optional(write.connection())
            .await?;
        if let Some(turn) = before {
            write.commit().await?;
            return held(
                turn.as_deref(),
                room.map(|room| room.left_after(NanoUsd::ZERO)),
            );
        }
        if let Some(room) = room
            && room.remaining < new.amount
        {
            // The fence may have risen, and that stays.
            write.commit().await?;
            return Ok(room.exhausted());
        }
        let running: Option<(i64, Vec<u8>)> = sqlx::query_as(RUNNING)
            .bind(new.learner.as_str())
            .bind(new.epoch.map(|epoch| int(epoch.0)))
            .fetch_optional(write.connection())
            .await?;
        let (place, turn) = running.unzip();
        put_reservation(&mut write, new, &class, place, now).await?;
        write.commit().await?;
        held(
            turn.as_deref(),
            room.map(|room| room.left_after(new.amount)),
        )
    }

    async fn settle_one(
        &self,
        id: ReservationId,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Inner<bool> {
        let mut write = self.write().await?;
        let settled = settle(&mut write, id, settlement, now).await?;
        write.commit().await?;
        Ok(settled)
    }

    async fn sweep(&self, before: Timestamp, now: Timestamp) -> Inner<u64> {
        let mut swept = 0;
        loop {
            let orphans: Vec<(Vec<u8>, i64)> = sqlx::query_as(ORPHANS)
                .bind(nanos(before))
                .bind(SWEPT_AT_ONCE)
                .fetch_all(&self.readers)
                .await?;
            if orphans.is_empty() {
                return Ok(swept);
            }
            let mut write = self.write().await?;
            for (id, amount) in orphans {
                let whole = Settlement {
                    cost: NanoUsd(amount),
                    ..Settlement::default()
                };
                let id = ReservationId(uuid(&id)?);
                swept += u64::from(settle(&mut write, id, &whole, now).await?);
            }
            write.commit().await?;
        }
    }
}

fn held(turn: Option<&[u8]>, left: Option<Left>) -> Inner<Reserved> {
    let turn = turn.map(uuid).transpose()?.map(TurnId);
    Ok(Reserved::Held { turn, left })
}

/// The bound that leaves least.
async fn bound(write: &mut Write, new: &NewReservation, now: Timestamp) -> Inner<Option<Room>> {
    if new.per_day.is_none() && new.per_month.is_none() {
        return Ok(None);
    }
    let (day, month) = (period::day(now), period::month(now));
    let (in_month, in_day): (i64, i64) = sqlx::query_as(SPENT)
        .bind(day)
        .bind(new.learner.as_str())
        .bind(month.start)
        .bind(month.end)
        .fetch_one(write.connection())
        .await?;
    let spent = Spent {
        day: NanoUsd(in_day),
        month: NanoUsd(in_month),
    };
    Ok(tightest(new, spent, now))
}

async fn put_reservation(
    write: &mut Write,
    new: &NewReservation,
    class: &ClassName,
    place: Option<i64>,
    now: Timestamp,
) -> Inner<()> {
    let day = period::day(now);
    sqlx::query(
        "INSERT INTO reservation (id, learner, class, model, turn, day, amount, time) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.0.as_bytes().as_slice())
    .bind(new.learner.as_str())
    .bind(class.as_str())
    .bind(&new.model)
    .bind(place)
    .bind(day)
    .bind(new.amount.0)
    .bind(nanos(now))
    .execute(write.connection())
    .await?;
    sqlx::query(HOLD)
        .bind(new.learner.as_str())
        .bind(day)
        .bind(new.amount.0)
        .execute(write.connection())
        .await?;
    if let Some(place) = place {
        count(write, place, 0, 0, new.amount).await?;
    }
    Ok(())
}

async fn settle(
    write: &mut Write,
    id: ReservationId,
    settlement: &Settlement,
    now: Timestamp,
) -> Inner<bool> {
    let held: Option<Held> = sqlx::query_as(SETTLE)
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(write.connection())
        .await?;
    let Some(held) = held else {
        return Ok(false);
    };
    sqlx::query(CHARGE)
        .bind(held.amount)
        .bind(settlement.cost.0)
        .bind(&held.learner)
        .bind(held.day)
        .execute(write.connection())
        .await?;
    let (input, output) = (settlement.input_tokens, settlement.output_tokens);
    if let Some(place) = held.turn {
        let difference = settlement.cost.minus(NanoUsd(held.amount));
        count(write, place, input, output, difference).await?;
    }
    let charged = EventBody::Charged {
        model: held.model,
        class: parsed(&held.class)?,
        cost: settlement.cost,
        input_tokens: input,
        output_tokens: output,
    };
    write.append(&parsed(&held.learner)?, &charged, now).await?;
    Ok(true)
}

async fn count(
    write: &mut Write,
    place: i64,
    input_tokens: u64,
    output_tokens: u64,
    cost: NanoUsd,
) -> Inner<()> {
    sqlx::query(COUNT)
        .bind(int(input_tokens))
        .bind(int(output_tokens))
        .bind(cost.0)
        .bind(place)
        .execute(write.connection())
        .await?;
    Ok(())
}

#[async_trait::async_trait]
impl Ledger for SqliteStore {
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
                sqlx::query_scalar("SELECT class FROM learner WHERE id = ?")
                    .bind(learner.as_str())
                    .fetch_optional(&self.readers)
                    .await?;
            Inner::Ok(parsed_option(class.as_deref())?)
        };
        read.await.map_err(during("reading a learner's class"))
    }
}
