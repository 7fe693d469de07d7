//! Wakes on a real control plane with a hundred fake nodes: the two cores carry the API server, etcd, the scheduler, KWOK, the
//! controller and the load. Before each run a calibration says what the machine gives just then.

#![expect(clippy::cast_precision_loss, reason = "counts of a storm are small")]

mod crowd;
mod node;
mod rush;
mod spent;
mod storm;

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::cluster::school::{CONTROLLER, Controller, School};
use carrel_tests::figures::Figures;
use serde_json::{Value, json};

use self::storm::{Storm, calibrate};
use crate::percentile;

/// Nodes that are only objects.
const NODES: u32 = 100;
/// Pods that wait.
const POOL: usize = 300;
/// What the field's gate fills its pool with.
const GATE_POOL: usize = 1050;
/// Rates that are tried, in wakes a second, until one is too fast.
const RATES: [u32; 7] = [16, 24, 32, 40, 48, 56, 64];

/// Wakes from a pool: how fast, how many a second, at what cost.
pub(super) async fn wakes(figures: &mut Figures) -> anyhow::Result<()> {
    let (school, controller) = open().await?;
    warm(figures, &school, &controller).await?;
    fastest(figures, &school).await?;
    gate(figures, &school).await
}

/// Sixteen thousand learners and more, asleep, of whom a few wake.
pub(super) async fn crowd(figures: &mut Figures) -> anyhow::Result<()> {
    let (school, controller) = open().await?;
    crowd::measure(figures, &school, controller).await
}

/// Sixteen thousand learners wake, as fast as the machine goes.
pub(super) async fn rush(figures: &mut Figures) -> anyhow::Result<()> {
    let (school, controller) = open().await?;
    rush::measure(figures, &school, controller).await
}

/// Learners with a workspace of their own, on a real node.
pub(super) async fn node(figures: &mut Figures) -> anyhow::Result<()> {
    node::measure(figures).await
}

async fn open() -> anyhow::Result<(School, Controller)> {
    let settings = json!({
        "kubernetes": {"refillsPerSecond": 100, "podsPerNamespace": 30_000},
        "fleet": {"maxLive": 60_000},
    });
    let school = School::open("cluster", NODES, &settings).await?;
    let school = school.context("it is measured on a real control plane")?;
    let controller = school.controller().await?;
    Ok((school, controller))
}

/// A class with a pool of so many pods.
fn class(pool: usize) -> Value {
    json!({"warmPool": {"size": pool}, "isolation": {"userNamespace": false}})
}

/// Makes so many learners of a class, and waits until each was visited.
async fn learners(school: &School, class: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = (0..count)
        .map(|number| format!("{class}-{number}"))
        .collect();
    storm::make_learners(school, class, &names).await?;
    Ok(names)
}

async fn warm(
    figures: &mut Figures,
    school: &School,
    controller: &Controller,
) -> anyhow::Result<()> {
    school.class("warm", &class(POOL)).await?;
    let names = learners(school, "warm", POOL).await?;
    school.pool(POOL).await?;
    figures.noted(
        "calibration: patches of learners a second, eight at a time",
        &calibrate(school).await?,
    );
    let mark = school.plane.mark().await?;
    let mut storm = Storm::poisson(school, &names, 10.0, Duration::from_secs(30)).await?;
    let woken = storm.times.len();
    figures.at_most(
        "wakes from a pool of 300, 10/s for 30 s: p50 / p99 from due to Ready seen",
        "ms",
        &[
            (percentile(&mut storm.times, 0.5)?, 50.0),
            (percentile(&mut storm.times, 0.99)?, 150.0),
        ],
    );
    school.pool(POOL).await?;
    let writes = school.plane.writes_since(mark).await?;
    let settled = writes
        .iter()
        .filter(|write| !write.resource.contains("leases") && write.resource != "nodes/status");
    let of_controller = writes.iter().filter(|write| {
        write.user == CONTROLLER && write.resource != "leases" && write.verb != "create"
    });
    let each = |count: usize| count as f64 / woken as f64;
    figures.at_most(
        "writes a warm wake by everybody, scheduler, kubelet and refill included",
        "writes",
        &[(each(settled.count()), 10.0)],
    );
    figures.at_most(
        "of them the controller's, the pod of the refill apart (a gateway's patch comes besides)",
        "writes",
        &[(each(of_controller.count()), 3.0)],
    );
    if storm.lost > 0 {
        figures.held("wakes that were lost", &storm.lost.to_string(), "0", false);
        println!("{}", controller.log()?);
    }
    Ok(())
}

async fn fastest(figures: &mut Figures, school: &School) -> anyhow::Result<()> {
    let (mut best, mut processor) = (0, 0.0);
    for (number, rate) in RATES.into_iter().enumerate() {
        let class_name = format!("rate{number}");
        school.class(&class_name, &class(POOL)).await?;
        let count = rate as usize * 10;
        let names = learners(school, &class_name, count + count / 2).await?;
        storm::settle(school, &class_name, POOL).await?;
        let calibration = calibrate(school).await?;
        let mut storm =
            Storm::poisson(school, &names, rate.into(), Duration::from_secs(10)).await?;
        storm::settle(school, &class_name, POOL).await?;
        let spent = storm.spent()?;
        let slowest = percentile(&mut storm.times, 0.99)?;
        figures.noted(
            &format!(
                "{rate}/s for 10 s: p50 / p99, processor time a wake until the pool is full again"
            ),
            &format!(
                "{:.0} / {slowest:.0} ms, {spent}, {} lost; calibration {calibration}",
                percentile(&mut storm.times, 0.5)?,
                storm.lost
            ),
        );
        school.class(&class_name, &class(0)).await?;
        storm::settle(school, &class_name, 0).await?;
        if slowest > 500.0 || storm.lost > 0 {
            break;
        }
        (best, processor) = (rate, spent.all());
    }
    figures.held(
        "highest rate with p99 at most 500 ms",
        &format!("{best}/s"),
        "≥ 40/s",
        best >= 40,
    );
    figures.at_most(
        "processor time of the machine a wake at that rate, refill included",
        "ms",
        &[(processor, 50.0)],
    );
    Ok(())
}

async fn gate(figures: &mut Figures, school: &School) -> anyhow::Result<()> {
    school.class("gate", &class(GATE_POOL)).await?;
    let names = learners(school, "gate", 1000).await?;
    storm::settle(school, "gate", GATE_POOL).await?;
    let calibration = calibrate(school).await?;
    let mut storm = Storm::poisson(school, &names, 75.0, Duration::from_secs(10)).await?;
    let (half, most) = (
        percentile(&mut storm.times, 0.5)?,
        percentile(&mut storm.times, 0.99)?,
    );
    figures.held(
        "75/s for 10 s from a pool of 1,050: wakes lost; p50 / p99; rate reached",
        &format!(
            "{}; {half:.0} / {most:.0} ms; {:.0}/s; calibration {calibration}",
            storm.lost, storm.reached
        ),
        "0 lost",
        storm.lost == 0,
    );
    school.class("gate", &class(0)).await?;
    storm::settle(school, "gate", 0).await
}
