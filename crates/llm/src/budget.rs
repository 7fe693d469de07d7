//! What a budget says to the clients of the dialects: the one shape of refusal that Claude Code shows to its user
//! without retrying, and the headers that warn before it.

use carrel_core::NanoUsd;
use jiff::Timestamp;

use crate::failure::{Failure, Kind};

const PREFIX: &str = "anthropic-ratelimit-unified-";
/// Shares of a budget from which a success carries a warning, in hundredths.
const THRESHOLDS: [i128; 2] = [95, 75];

/// Which budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Period {
    /// The UTC day's.
    Daily,
    /// The UTC month's.
    Monthly,
}

/// A budget that is spent, or too small for this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Which.
    pub period: Period,
    /// Its size.
    pub limit: NanoUsd,
    /// When it begins anew.
    pub resets_at: Timestamp,
}

impl Exhausted {
    /// What the client is told.
    pub fn failure(&self) -> Failure {
        let message = format!(
            "The {} budget of {} USD is used up. It begins anew at {}.",
            self.period, self.limit, self.resets_at
        );
        Failure::new(Kind::BudgetExhausted, message)
    }

    /// The headers of the refusal (`x-should-retry` comes with the failure's kind).
    pub fn headers(&self, now: Timestamp) -> Vec<(String, String)> {
        let wait = (self.resets_at.as_second() - now.as_second()).max(1);
        let reset = self.resets_at.as_second().to_string();
        let mut headers = vec![("retry-after".to_owned(), wait.to_string())];
        headers.extend(
            [
                ("status", "rejected"),
                ("reset", &reset),
                ("overage-reset", &reset),
                ("overage-utilization", "1"),
                ("overage-surpassed-threshold", "1"),
                ("overage-period", self.period.into()),
                ("overage-disabled-reason", "org_spend_cap_reached"),
            ]
            .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned())),
        );
        headers
    }
}

/// The headers of a success under a budget of which `used` of `limit` is spent or reserved.
pub fn headers_of_success(used: NanoUsd, limit: NanoUsd) -> Vec<(String, String)> {
    let hundredths = i128::from(used.0.max(0)) * 100 / i128::from(limit.0.max(1));
    let hundredths = hundredths.min(100);
    let surpassed = THRESHOLDS.into_iter().find(|share| hundredths >= *share);
    let status = if surpassed.is_some() {
        "allowed_warning"
    } else {
        "allowed"
    };
    let decimal = |share: i128| format!("{}.{:02}", share / 100, share % 100);
    let mut headers = vec![
        (format!("{PREFIX}status"), status.to_owned()),
        (format!("{PREFIX}overage-utilization"), decimal(hundredths)),
    ];
    if let Some(share) = surpassed {
        headers.push((
            format!("{PREFIX}overage-surpassed-threshold"),
            decimal(share),
        ));
    }
    headers
}
