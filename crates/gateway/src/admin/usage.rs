//! `GET /admin/v1/usage`: money and tokens, from the ledger.

use axum::Json;
use axum::extract::State;
use carrel_core::LearnerId;
use carrel_store::ledger::{UsageBy, UsageRow};
use jiff::{SignedDuration, Timestamp, civil};
use serde::{Deserialize, Serialize};

use super::query::Asked;
use crate::auth::Operator;
use crate::gateway::Shared;
use crate::refusal::{Refusal, Result};

const DAYS_DEFAULT: i64 = 30;

/// The answer of `GET /admin/v1/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// By what it is summed.
    pub by: UsageBy,
    /// From here.
    pub since: Timestamp,
    /// Until here, exclusive.
    pub until: Timestamp,
    /// A row a key.
    pub rows: Vec<UsageRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    by: Option<UsageBy>,
    learner: Option<LearnerId>,
    since: Option<String>,
    until: Option<String>,
}

pub(super) async fn usage(
    State(shared): State<Shared>,
    _: Operator,
    Asked(query): Asked<Query>,
) -> Result<Json<UsageReport>> {
    let now = shared.now();
    let by = query.by.unwrap_or(UsageBy::Learner);
    let until = query.until.as_deref().map(time).transpose()?.unwrap_or(now);
    let since = query.since.as_deref().map(time).transpose()?;
    let since = since.unwrap_or(until - SignedDuration::from_hours(24 * DAYS_DEFAULT));
    let store = &shared.options.store;
    let rows = store
        .usage(by, query.learner.as_ref(), since, until)
        .await?;
    Ok(Json(UsageReport {
        by,
        since,
        until,
        rows,
    }))
}

/// A time (RFC 3339) or a day (UTC).
fn time(text: &str) -> Result<Timestamp> {
    let day = || {
        let day: civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(day).ok_or_else(|| {
        Refusal::invalid(
            "'since' and 'until' are days or times, as in '2026-05-01' or '2026-05-01T12:00:00Z'",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_midnight_in_utc() {
        let day = time("2026-05-01").expect("a day");
        assert_eq!(day.to_string(), "2026-05-01T00:00:00Z");
        assert_eq!(
            time("2026-05-01T12:30:00Z").expect("a time").to_string(),
            "2026-05-01T12:30:00Z"
        );
        assert!(time("yesterday").is_err());
    }
}
