//! Sixteen thousand learners asleep: what the controller needs for them, and what a wake among them takes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::cluster::school::{CONTROLLER, Controller, School};
use carrel_tests::eventually;
use carrel_tests::figures::Figures;

use super::storm::{self, Storm};
use super::{POOL, class};
use crate::percentile;

/// How many sleep.
const ASLEEP: usize = 16_000;
/// How long nothing may be written.
const IDLE: Duration = Duration::from_mins(1);

pub(super) async fn measure(
    figures: &mut Figures,
    school: &School,
    controller: Controller,
) -> anyhow::Result<()> {
    school.class("many", &class(POOL)).await?;
    let names: Vec<String> = (0..ASLEEP).map(|number| format!("many-{number}")).collect();
    storm::make_learners(school, "many", &names).await?;
    storm::settle(school, "many", POOL).await?;
    visited(&controller).await?;
    controller.stop()?;

    let began = Instant::now();
    let controller = school.controller().await?;
    eventually("it is ready", Duration::from_mins(1), || async {
        Ok(controller
            .metrics()
            .await?
            .contains("carrel_learners{")
            .then_some(()))
    })
    .await?;
    visited(&controller).await?;
    let took = began.elapsed().as_secs_f64();
    let mark = school.plane.mark().await?;
    tokio::time::sleep(IDLE).await;
    let writes = school.plane.writes_since(mark).await?;
    let ours = writes
        .iter()
        .filter(|write| write.user == CONTROLLER && write.resource != "leases")
        .count();
    figures.at_most(
        "16,000 learners asleep: controller's memory (resident)",
        "MiB",
        &[(resident(controller.pid())?, 80.0)],
    );
    figures.at_most(
        "16,000 learners asleep: start of a controller until all are reconciled",
        "s",
        &[(took, 2.5)],
    );
    figures.held(
        "16,000 learners asleep: writes in an idle minute, leases apart",
        &ours.to_string(),
        "0",
        ours == 0,
    );
    let mut storm = Storm::poisson(school, &names, 5.0, Duration::from_secs(20)).await?;
    figures.at_most(
        "wake among 16,000 asleep, 5/s: p50 / p99",
        "ms",
        &[
            (percentile(&mut storm.times, 0.5)?, 30.0),
            (percentile(&mut storm.times, 0.99)?, 70.0),
        ],
    );
    controller.stop()
}

/// Waits until everybody has a status.
async fn visited(controller: &Controller) -> anyhow::Result<()> {
    eventually("all are counted", Duration::from_mins(10), || async {
        let metrics = controller.metrics().await?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"carrel_learners{state="Asleep",class="many"} "#));
        Ok(line.filter(|count| count.parse() == Ok(ASLEEP)).map(|_| ()))
    })
    .await
}

/// Resident memory of a process, in MiB (`proc_pid_status(5)`).
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("a size")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
