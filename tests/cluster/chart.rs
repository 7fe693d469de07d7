//! The chart on a real API server: what it renders is known there and taken, and keeps those in their place who live by it.

mod admission;
mod conform;
mod life;
mod rights;
mod schemas;
mod taken;

use carrel_tests::cluster::Chart;
use carrel_tests::cluster::school::LEARNER_NAMESPACES;

use crate::start_chart;

/// The chart is installed with the least that must be said, and these further words: `--set=…`. `None` when the machine lacks what it
/// needs, which is said.
async fn installed(test: &str, fake_nodes: u32, more: &[&str]) -> anyhow::Result<Option<Chart>> {
    let Some(chart) = start_chart(test, fake_nodes).await? else {
        return Ok(None);
    };
    let namespaces = format!(
        "--set=learnerNamespaces.names={{{}}}",
        LEARNER_NAMESPACES.join(",")
    );
    // Nobody runs a Job where there are no nodes.
    let words = ["--set=migrations.enabled=false", &namespaces];
    chart
        .install(&Chart::values_of("default"), &[&words, more].concat())
        .await?;
    Ok(Some(chart))
}
