//! `carrel usage`: what was spent, from the ledger.

use carrel_gateway::UsageReport;
use carrel_store::ledger::UsageRow;

use super::learner::segment;
use crate::cli::{By, Usage};
use crate::client::Client;
use crate::output::Rows;

pub(super) async fn run(flags: Usage) -> anyhow::Result<()> {
    let by = match flags.by {
        By::Learner => "learner",
        By::Class => "class",
        By::Model => "model",
        By::Day => "day",
    };
    let bounds: Vec<_> = [("since", &flags.since), ("until", &flags.until)]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_deref()?))))
        .collect();
    let path = format!("/admin/v1/usage?by={by}{}", bounds.concat());
    let report: UsageReport = Client::find(&flags.client).await?.get(&path).await?;
    let rows = Rows {
        items: &report.rows,
        headers: &["KEY", "CALLS", "INPUT-TOKENS", "OUTPUT-TOKENS", "COST-USD"],
        plain: 5,
        cells: |row: &UsageRow, _| {
            vec![
                row.key.clone(),
                row.calls.to_string(),
                row.input_tokens.to_string(),
                row.output_tokens.to_string(),
                row.cost_nano_usd.to_string(),
            ]
        },
        name: |row| row.key.clone(),
    };
    rows.print(&flags.client)
}
