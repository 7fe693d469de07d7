//! Sixteen thousand learners asleep: what controller and gateway need for them, and what a wake among them takes and costs.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::cluster::school::{CONTROLLER, Controller, NAMESPACE, School};
use carrel_tests::figures::{Figures, shown};
use carrel_tests::{Roles, eventually, eventually_every};
use serde_json::json;

use super::storm::{self, Storm};
use super::{POOL, class};
use crate::memory::resident;
use crate::percentile;

/// How many sleep.
pub(super) const ASLEEP: usize = 16_000;
/// With so few and so many a wake's cost is compared.
const FEW: usize = 1_000;
const MANY: usize = 48_000;
/// How long nothing may be written.
const IDLE: Duration = Duration::from_mins(1);
/// What is done for so many learners has been done by then.
const DONE_WITHIN: Duration = Duration::from_mins(20);
/// A controller that nobody else is in the way of leads by then.
const LEADS_WITHIN: Duration = Duration::from_mins(1);
/// To look costs a controller that counts thousands each time, whose time is taken meanwhile.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Learners of each storm: more than it takes.
const STORM: usize = 500;
pub(super) const CLASS: &str = "many";
const GATEWAY: &str = "carrel-gateway";

pub(super) async fn measure(
    figures: &mut Figures,
    school: &School,
    controller: Controller,
) -> anyhow::Result<()> {
    school.class(CLASS, &class(POOL)).await?;
    let everybody: Vec<String> = (0..MANY).map(|number| format!("l{number}")).collect();
    grow(school, &controller, &everybody, 0..FEW).await?;
    let mut costs = vec![cost(figures, school, FEW, &everybody[..STORM]).await?];

    let asleep = grow(school, &controller, &everybody, FEW..ASLEEP).await?;
    controller.stop()?;
    let controller = at_rest(figures, school, asleep).await?;
    gateway(figures, school).await?;
    among(figures, school, &everybody[STORM..][..STORM]).await?;
    costs.push(cost(figures, school, ASLEEP, &everybody[2 * STORM..][..STORM]).await?);

    grow(school, &controller, &everybody, ASLEEP..MANY).await?;
    costs.push(cost(figures, school, MANY, &everybody[3 * STORM..][..STORM]).await?);
    let (least, most) = costs
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), cost| {
            (least.min(*cost), most.max(*cost))
        });
    figures.at_most(
        "most expensive of these beside the cheapest",
        "%",
        &[((most / least - 1.0) * 100.0, 20.0)],
    );
    controller.stop()
}

/// Makes these learners, and waits until all that there are then are counted: how many sleep.
pub(super) async fn grow(
    school: &School,
    controller: &Controller,
    everybody: &[String],
    which: Range<usize>,
) -> anyhow::Result<usize> {
    let all = which.end;
    let awake = counted(controller, |state| state != "Asleep").await?;
    storm::make_learners(school, CLASS, &everybody[which]).await?;
    visited(controller, all - awake).await?;
    storm::settle(school, CLASS, POOL).await?;
    Ok(all - awake)
}

/// A new controller, until it has seen all, and then while nobody stirs.
async fn at_rest(
    figures: &mut Figures,
    school: &School,
    asleep: usize,
) -> anyhow::Result<Controller> {
    let began = Instant::now();
    let controller = school.controller().await?;
    eventually_every(BETWEEN_LOOKS, "it leads", LEADS_WITHIN, || async {
        let metrics = controller.metrics().await?;
        Ok(metrics.contains("carrel_leader 1").then_some(()))
    })
    .await?;
    let leads = began.elapsed().as_secs_f64();
    visited(&controller, asleep).await?;
    let took = began.elapsed().as_secs_f64();
    figures.at_most(
        "16,000 learners: controller's memory (resident)",
        "MiB",
        &[(resident(controller.pid())?, 80.0)],
    );
    figures.at_most(
        "16,000 learners: start of a controller until all are reconciled",
        "s",
        &[(took, 2.5)],
    );
    figures.noted(
        "of this until it has listed all and leads",
        &format!("{} s", shown(leads)),
    );
    Ok(controller)
}

/// A gateway that has taken all of them over into its database.
async fn gateway(figures: &mut Figures, school: &School) -> anyhow::Result<()> {
    let settings =
        json!({"gateway": {"fleet": "Kubernetes"}, "kubernetes": {"namespace": NAMESPACE}});
    let roles = Roles::prepare_with("cluster", &settings, &[])?;
    let mut roles = roles.context("a gateway needs a database and a bucket")?;
    let access = school.plane.user(GATEWAY, Some("system:masters"))?;
    let kubeconfig = access.file.display().to_string();
    roles.variables.push(("KUBECONFIG", kubeconfig));
    let gateway = roles.start("gateway").await?;
    let all = ASLEEP.to_string();
    eventually("all have rows", DONE_WITHIN, || async {
        let rows = roles
            .server
            .psql(&roles.database, "SELECT count(*) FROM learner");
        Ok((rows.trim() == all).then_some(()))
    })
    .await?;
    figures.at_most(
        "16,000 learners: gateway's memory (resident)",
        "MiB",
        &[(resident(gateway.pid())?, 60.0)],
    );
    let mark = school.plane.mark().await?;
    tokio::time::sleep(IDLE).await;
    let writes = school.plane.writes_since(mark).await?;
    let ours = writes
        .iter()
        .filter(|write| [CONTROLLER, GATEWAY].contains(&write.user.as_str()))
        .filter(|write| write.resource != "leases")
        .count();
    figures.held(
        "16,000 learners: writes of controller and gateway in an idle minute, leases apart",
        &ours.to_string(),
        "0",
        ours == 0,
    );
    Ok(())
}

/// Wakes of a few among many.
async fn among(figures: &mut Figures, school: &School, names: &[String]) -> anyhow::Result<()> {
    figures.noted(
        "calibration: patches of learners a second, eight at a time",
        &storm::calibrate(school).await?,
    );
    let mut storm = Storm::poisson(school, names, 5.0, Duration::from_secs(20)).await?;
    figures.at_most(
        "wake among 16,000 asleep, 5/s: p50 / p99",
        "ms",
        &[
            (percentile(&mut storm.times, 0.5)?, 30.0),
            (percentile(&mut storm.times, 0.99)?, 70.0),
        ],
    );
    storm::settle(school, CLASS, POOL).await?;
    let spent = storm.spent()?.to_string();
    figures.noted("of these: processor time a wake", &spent);
    Ok(())
}

/// The controller's processor time for each wake, in milliseconds, while there are so many.
async fn cost(
    figures: &mut Figures,
    school: &School,
    count: usize,
    names: &[String],
) -> anyhow::Result<f64> {
    let calibration = storm::calibrate(school).await?;
    let mut storm = Storm::poisson(school, names, 10.0, Duration::from_secs(20)).await?;
    storm::settle(school, CLASS, POOL).await?;
    let spent = storm.spent()?.by("carrel");
    figures.noted(
        &format!(
            "wakes among {count} learners, 10/s for 20 s: controller's processor time a wake; p50"
        ),
        &format!(
            "{spent:.2} ms; {:.0} ms; calibration {calibration}",
            percentile(&mut storm.times, 0.5)?
        ),
    );
    Ok(spent)
}

/// Waits until so many are counted as asleep.
async fn visited(controller: &Controller, asleep: usize) -> anyhow::Result<()> {
    eventually_every(BETWEEN_LOOKS, "all are counted", DONE_WITHIN, || async {
        let counted = counted(controller, |state| state == "Asleep").await?;
        Ok((counted == asleep).then_some(()))
    })
    .await
}

/// How many learners a controller counts in such states.
async fn counted(controller: &Controller, which: impl Fn(&str) -> bool) -> anyhow::Result<usize> {
    let metrics = controller.metrics().await?;
    let of_class = format!(r#"",class="{CLASS}"}} "#);
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(r#"carrel_learners{state=""#));
    let counts = lines.filter_map(|line| line.split_once(&of_class));
    let counts = counts.filter(|(state, _)| which(state));
    Ok(counts
        .filter_map(|(_, count)| count.parse::<usize>().ok())
        .sum())
}
