//! The read model of usage: a fold of `charged` events by hour, learner, class and model, without those of nothing. It is
//! brought up to date when it is read; its cursor moves in the transaction that changes it.

use carrel_core::event::EventBody;
use carrel_core::{LearnerId, NanoUsd};
use carrel_store::adapter::column::{count, from_json, int, time};
use carrel_store::adapter::period;
use carrel_store::ledger::{UsageBy, UsageRow};
use jiff::Timestamp;
use sqlx::FromRow;

use crate::SqliteStore;
use crate::fault::{Fault, Inner};
use crate::write::Write;

/// Events folded in one transaction: a long catch-up lets messages through in between.
const FOLDED_AT_ONCE: u32 = 500;

pub(crate) const CURSOR: &str = "SELECT sequence FROM projection WHERE name = 'usage'";
pub(crate) const CHARGED: &str = "SELECT sequence, learner, time, body FROM event \
    WHERE type = 'charged' AND sequence > ? ORDER BY sequence LIMIT ?";
pub(crate) const BEHIND: &str = "SELECT EXISTS (SELECT 1 FROM event WHERE type = 'charged' \
    AND sequence > (SELECT sequence FROM projection WHERE name = 'usage'))";

/// Sums the read model over the hours from the first argument to before the second, for all learners or the third.
macro_rules! sum_usage {
    ($key:literal, $whose:literal) => {
        concat!(
            "SELECT ",
            $key,
            " AS key, sum(calls) AS calls, sum(input_tokens) AS input_tokens, \
             sum(output_tokens) AS output_tokens, sum(cost) AS cost \
             FROM usage WHERE hour >= ?1 AND hour < ?2 ",
            $whose,
            " GROUP BY 1 ORDER BY 1"
        )
    };
}

#[derive(FromRow)]
struct Row {
    key: String,
    calls: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost: i64,
}

#[derive(FromRow)]
struct Charge {
    sequence: i64,
    learner: String,
    time: i64,
    body: String,
}

/// The statement for a key, of all learners or of one.
pub(crate) fn statement(by: UsageBy, of_one: bool) -> &'static str {
    match (by, of_one) {
        (UsageBy::Learner, false) => sum_usage!("learner", ""),
        (UsageBy::Learner, true) => sum_usage!("learner", "AND learner = ?3"),
        (UsageBy::Class, false) => sum_usage!("class", ""),
        (UsageBy::Class, true) => sum_usage!("class", "AND learner = ?3"),
        (UsageBy::Model, false) => sum_usage!("model", ""),
        (UsageBy::Model, true) => sum_usage!("model", "AND learner = ?3"),
        (UsageBy::Day, false) => sum_usage!("date(hour * 3600, 'unixepoch')", ""),
        (UsageBy::Day, true) => {
            sum_usage!("date(hour * 3600, 'unixepoch')", "AND learner = ?3")
        }
    }
}

impl SqliteStore {
    pub(crate) async fn read_usage(
        &self,
        by: UsageBy,
        learner: Option<&LearnerId>,
        since: Timestamp,
        until: Timestamp,
    ) -> Inner<Vec<UsageRow>> {
        self.catch_up().await?;
        let hours = period::hours(since, until);
        let query = sqlx::query_as(statement(by, learner.is_some()))
            .bind(hours.start)
            .bind(hours.end);
        let query = match learner {
            None => query,
            Some(learner) => query.bind(learner.as_str()),
        };
        let rows: Vec<Row> = query.fetch_all(&self.readers).await?;
        let row = |row: Row| UsageRow {
            key: row.key,
            calls: count(row.calls),
            input_tokens: count(row.input_tokens),
            output_tokens: count(row.output_tokens),
            cost_nano_usd: NanoUsd(row.cost),
        };
        Ok(rows.into_iter().map(row).collect())
    }

    pub(crate) async fn fold_usage_anew(&self) -> Inner<()> {
        let mut write = self.write().await?;
        for statement in [
            "DELETE FROM usage",
            "UPDATE projection SET sequence = 0 WHERE name = 'usage'",
        ] {
            sqlx::query(statement).execute(write.connection()).await?;
        }
        write.commit().await?;
        self.catch_up().await
    }

    /// Folds what was appended since; takes the writer only when there is something.
    pub(crate) async fn catch_up(&self) -> Inner<()> {
        let behind: bool = sqlx::query_scalar(BEHIND).fetch_one(&self.readers).await?;
        let mut more = behind;
        while more {
            let mut write = self.write().await?;
            more = fold_some(&mut write).await?;
            write.commit().await?;
        }
        Ok(())
    }
}

/// Folds a batch and moves the cursor after it; whether there may be more.
async fn fold_some(write: &mut Write) -> Inner<bool> {
    let cursor: i64 = sqlx::query_scalar(CURSOR)
        .fetch_one(write.connection())
        .await?;
    let charges: Vec<Charge> = sqlx::query_as(CHARGED)
        .bind(cursor)
        .bind(FOLDED_AT_ONCE)
        .fetch_all(write.connection())
        .await?;
    let Some(last) = charges.last().map(|charge| charge.sequence) else {
        return Ok(false);
    };
    for charge in &charges {
        fold(write, charge).await?;
    }
    sqlx::query("UPDATE projection SET sequence = ? WHERE name = 'usage'")
        .bind(last)
        .execute(write.connection())
        .await?;
    Ok(true)
}

async fn fold(write: &mut Write, charge: &Charge) -> Inner<()> {
    let EventBody::Charged {
        model,
        class,
        cost,
        input_tokens,
        output_tokens,
    } = from_json(&charge.body)?
    else {
        let what = format!(
            "event {} is not the 'charged' it is said to be",
            charge.sequence
        );
        return Err(Fault::Impossible(what));
    };
    if (cost, input_tokens, output_tokens) == (NanoUsd::ZERO, 0, 0) {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO usage (hour, learner, class, model, calls, input_tokens, output_tokens, cost) \
         VALUES (?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + 1, \
         input_tokens = input_tokens + excluded.input_tokens, \
         output_tokens = output_tokens + excluded.output_tokens, cost = cost + excluded.cost",
    )
    .bind(period::hour(time(charge.time).as_second()))
    .bind(&charge.learner)
    .bind(class.as_str())
    .bind(&model)
    .bind(int(input_tokens))
    .bind(int(output_tokens))
    .bind(cost.0)
    .execute(write.connection())
    .await?;
    Ok(())
}
