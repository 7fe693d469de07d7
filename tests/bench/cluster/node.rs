//! Wakes on a real node with the images there, of learners with 10 MB of their own: from the pool, and without one.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, bail};
use carrel_tests::agent;
use carrel_tests::cluster::{Installation, NodeOptions, Steps};
use carrel_tests::figures::{Figures, shown};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use super::storm::is_up;
use crate::{median, percentile};

/// Wakes of each kind.
const WAKES: usize = 15;
/// What the agent keeps, in MiB.
const KEPT: u32 = 10;

/// Milliseconds from the message, of each wake, in their order.
#[derive(Default)]
struct Times {
    /// Until the learner's object says that they are ready.
    ready: Vec<f64>,
    /// Until the turn is done.
    answered: Vec<f64>,
}

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let mut steps = Steps::new("node");
    let school = Installation::start(&mut steps, NodeOptions::default()).await?;
    let school = school.context("it is measured on a real node")?;
    let measured = each(figures, &school).await;
    if measured.is_err() {
        school.tell();
    }
    measured
}

async fn each(figures: &mut Figures, school: &Installation) -> anyhow::Result<()> {
    for (kind, pool, bar) in [("warm", 1, 500.0), ("cold", 0, 2500.0)] {
        let more = json!({
            "resources": {"cpu": "1", "memory": "128Mi", "ephemeralStorage": "256Mi"},
            "warmPool": {"size": pool},
        });
        school.apply(&agent::inside(kind, &more))?;
        school.learner(kind, kind).await?;
        school.api.reply(kind, &format!("keep {KEPT}")).await?;
        let before = stages(school, kind).await?;
        let mut times = wakes(school, kind, pool).await?;
        let spent = stages(school, kind).await?;
        figures.at_most(
            &format!(
                "{kind} wake on a real node, 10 MB workspace: p50 from the message to Ready seen"
            ),
            "ms",
            &[(median(&mut times.ready)?, bar)],
        );
        figures.noted(
            &format!("of these {WAKES}: p90 to Ready seen; p50 / p90 to the turn's `done`"),
            &format!(
                "{}; {} / {} ms",
                shown(percentile(&mut times.ready, 0.9)?),
                shown(median(&mut times.answered)?),
                shown(percentile(&mut times.answered, 0.9)?)
            ),
        );
        let stages = spent.iter().map(|(stage, after)| {
            let since = before.get(stage).copied().unwrap_or_default();
            let mean = (after.0 - since.0) / (after.1 - since.1) * 1e3;
            format!("{stage} {mean:.0}")
        });
        figures.noted(
            "their stages (carrel_wake_duration_seconds), on average",
            &format!("{} ms", stages.collect::<Vec<_>>().join(", ")),
        );
        school.api.sleep(kind).await?;
        school.apply(&agent::inside(kind, &json!({})))?;
    }
    Ok(())
}

async fn wakes(school: &Installation, learner: &str, pool: usize) -> anyhow::Result<Times> {
    let mut times = Times::default();
    for wake in 0..WAKES {
        school.api.sleep(learner).await?;
        school.no_pods().await?;
        school.blank(learner, pool).await?;
        let up = seen_up(school, learner).await?;
        let began = Instant::now();
        let answer = async {
            school.api.reply(learner, &format!("wake {wake}")).await?;
            anyhow::Ok(began.elapsed())
        };
        let ready = async {
            up.await?;
            anyhow::Ok(began.elapsed())
        };
        let (answered, ready) = tokio::try_join!(answer, ready)?;
        times.ready.push(ready.as_secs_f64() * 1e3);
        times.answered.push(answered.as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// What wakes of a kind took by stage until now, as controller and gateways say: the sum of the seconds, and how many.
async fn stages(school: &Installation, kind: &str) -> anyhow::Result<BTreeMap<String, (f64, f64)>> {
    let pods = ["get", "pods", "--output=jsonpath={.items[*].status.podIP}"];
    let mut stages = BTreeMap::<String, (f64, f64)>::new();
    for address in school.kubectl(&pods)?.split_whitespace() {
        let Ok(answer) = reqwest::get(format!("http://{address}:7079/metrics")).await else {
            // The chart's hooks have none.
            continue;
        };
        let metrics = answer.text().await?;
        for line in metrics.lines() {
            let Some(line) = line.strip_prefix("carrel_wake_duration_seconds_") else {
                continue;
            };
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let of = |what: &str| {
                let labels = format!(r#"{what}{{start_kind="{kind}",stage=""#);
                series.strip_prefix(&labels)?.strip_suffix("\"}")
            };
            let value: f64 = value.parse()?;
            if let Some(stage) = of("sum") {
                stages.entry(stage.to_owned()).or_default().0 += value;
            } else if let Some(stage) = of("count") {
                stages.entry(stage.to_owned()).or_default().1 += value;
            }
        }
    }
    Ok(stages)
}

/// A watch that has begun: it ends when the learner is seen to be ready.
async fn seen_up(
    school: &Installation,
    learner: &str,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let kind = GroupVersionKind::gvk("carrel.dev", "v1alpha1", "Learner");
    let kind = ApiResource::from_gvk_with_plural(&kind, "learners");
    let client = school.plane.client();
    let learners = Api::<DynamicObject>::namespaced_with(client, Installation::NAMESPACE, &kind);
    let asleep = learners.get(learner).await?;
    let since = asleep.resource_version().context("it is stored")?;
    let of = WatchParams::default().fields(&format!("metadata.name={learner}"));
    let mut events = learners.watch(&of, &since).await?.boxed();
    Ok(async move {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(learner) = event
                && is_up(&learner)
            {
                return Ok(());
            }
        }
        bail!("the watch ended before the learner was ready")
    })
}
