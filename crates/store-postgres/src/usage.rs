//! The read model of usage: a fold of `charged` events by hour, learner, class and model, without those of nothing. It is
//! changed in the statement that appends the event (`ledger`), so it is never behind; of one learner only under that learner's
//! lock, so it can be folded anew one learner at a time, while others are charged.

use carrel_core::{LearnerId, NanoUsd};
use carrel_store::adapter::column::{count, parsed};
use carrel_store::adapter::period;
use carrel_store::ledger::{UsageBy, UsageRow};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use crate::PostgresStore;
use crate::fault::Inner;

/// Learners folded between two looks at the list.
const FOLDED_AT_ONCE: i64 = 500;

pub(crate) const CHARGED: &str = "INSERT INTO usage \
        (hour, learner, class, model, calls, input_tokens, output_tokens, cost) \
    SELECT div(time, 3600000000000) - (mod(time, 3600000000000) < 0)::int, learner, \
        body->>'class', body->>'model', count(*), sum((body->>'input_tokens')::bigint), \
        sum((body->>'output_tokens')::bigint), sum((body->>'cost')::bigint) \
    FROM event WHERE learner = $1 AND type = 'charged' AND ((body->>'cost')::bigint <> 0 \
        OR (body->>'input_tokens')::bigint <> 0 OR (body->>'output_tokens')::bigint <> 0) \
    GROUP BY 1, 2, 3, 4";

#[derive(FromRow)]
struct Row {
    key: String,
    calls: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost: i64,
}

/// Sums the read model over the hours from the first argument to before the second, for all learners or the third.
pub(crate) fn statement(by: UsageBy, of_one: bool) -> String {
    let whose = if of_one { "AND learner = $3 " } else { "" };
    let key = match by {
        UsageBy::Learner => "learner",
        UsageBy::Class => "class",
        UsageBy::Model => "model",
        UsageBy::Day => {
            "to_char(to_timestamp(hour * 3600) AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE \"C\""
        }
    };
    format!(
        "SELECT {key} AS key, sum(calls)::bigint AS calls, \
         sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens, \
         sum(cost)::bigint AS cost FROM usage WHERE hour >= $1 AND hour < $2 \
         {whose}GROUP BY 1 ORDER BY 1"
    )
}

impl PostgresStore {
    pub(crate) async fn read_usage(
        &self,
        by: UsageBy,
        learner: Option<&LearnerId>,
        since: Timestamp,
        until: Timestamp,
    ) -> Inner<Vec<UsageRow>> {
        let hours = period::hours(since, until);
        let query = sqlx::query_as(AssertSqlSafe(statement(by, learner.is_some())))
            .bind(hours.start)
            .bind(hours.end);
        let query = match learner {
            None => query,
            Some(learner) => query.bind(learner.as_str()),
        };
        let rows: Vec<Row> = query.fetch_all(&self.reports).await?;
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
        let mut after = String::new();
        loop {
            let ids: Vec<String> =
                sqlx::query_scalar("SELECT id FROM learner WHERE id > $1 ORDER BY id LIMIT $2")
                    .bind(&after)
                    .bind(FOLDED_AT_ONCE)
                    .fetch_all(&self.reports)
                    .await?;
            let Some(last) = ids.last() else {
                return Ok(());
            };
            after.clone_from(last);
            for id in &ids {
                self.fold_anew(&parsed(id)?).await?;
            }
        }
    }

    async fn fold_anew(&self, learner: &LearnerId) -> Inner<()> {
        let mut write = self.write(learner).await?;
        for statement in ["DELETE FROM usage WHERE learner = $1", CHARGED] {
            sqlx::query(statement)
                .bind(learner.as_str())
                .execute(write.connection())
                .await?;
        }
        write.commit().await
    }
}
