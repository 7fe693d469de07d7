//! Wakes at drawn times, and when each was seen to be ready.

#![expect(clippy::cast_precision_loss, reason = "counts of a storm are small")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::cluster::school::{NAMESPACE, School, is_ready};
use carrel_tests::eventually_every;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::spent::Spent;

/// Whoever is not ready by then is lost.
const LOST: Duration = Duration::from_mins(2);
/// The API server takes so many calls of the load at once.
const AT_ONCE: usize = 8;
/// A pool is full by then.
const FULL_WITHIN: Duration = Duration::from_mins(5);
/// To look costs the API server, whose processor time is measured meanwhile.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How long a calibration takes.
const CALIBRATION: Duration = Duration::from_secs(3);

/// What came of a storm.
pub(super) struct Storm {
    /// Milliseconds from due to seen ready, of each.
    pub(super) times: Vec<f64>,
    pub(super) lost: usize,
    /// How many were woken.
    woken: usize,
    /// What had been spent before.
    before: Spent,
    /// Wakes a second from the first due to the last ready.
    pub(super) reached: f64,
}

impl Storm {
    /// Wakes these learners, who were never awake, at times as independent people come (a Poisson process).
    pub(super) async fn poisson(
        school: &School,
        names: &[String],
        rate: f64,
        lasts: Duration,
    ) -> anyhow::Result<Self> {
        let mut due = Vec::new();
        let mut at = 0.0;
        for name in names {
            at -= (1.0 - rand::random::<f64>()).ln() / rate;
            if at > lasts.as_secs_f64() {
                break;
            }
            due.push((name.clone(), Duration::from_secs_f64(at)));
        }
        let mut seen = watch(school).await?;
        let (began, before) = (Instant::now(), Spent::until_now()?);
        let wakes = due.iter().map(|(name, after)| async move {
            tokio::time::sleep_until((began + *after).into()).await;
            school.wake(name, 0).await
        });
        let wakes = futures::future::try_join_all(wakes);
        let mut ready: HashMap<String, Instant> = HashMap::new();
        let wanted: HashMap<&str, Duration> = due
            .iter()
            .map(|(name, after)| (name.as_str(), *after))
            .collect();
        let listen = async {
            while ready.len() < wanted.len() {
                let next = tokio::time::timeout(LOST, seen.recv()).await;
                let Ok(Some((name, at))) = next else { break };
                if wanted.contains_key(name.as_str()) {
                    ready.entry(name).or_insert(at);
                }
            }
        };
        let (asked, ()) = tokio::join!(wakes, listen);
        asked?;
        let took = began.elapsed().as_secs_f64();
        let times = ready.iter().filter_map(|(name, at)| {
            let due = wanted.get(name.as_str())?;
            Some(at.duration_since(began + *due).as_secs_f64() * 1e3)
        });
        let times: Vec<f64> = times.collect();
        Ok(Self {
            lost: due.len() - times.len(),
            woken: due.len(),
            before,
            reached: times.len() as f64 / took,
            times,
        })
    }

    /// Processor time for each wake, of all that was done until now.
    pub(super) fn spent(&self) -> anyhow::Result<Spent> {
        Ok(self.before.since()?.each(self.woken))
    }
}

/// Says of each learner that is seen ready when that was.
async fn watch(school: &School) -> anyhow::Result<mpsc::UnboundedReceiver<(String, Instant)>> {
    let (say, seen) = mpsc::unbounded_channel();
    let events = watcher::watcher(school.learners(), watcher::Config::default());
    let (listed, mut is_listed) = tokio::sync::watch::channel(false);
    TaskTracker::new().spawn(async move {
        let mut events = std::pin::pin!(events.default_backoff());
        loop {
            let next = tokio::select! {
                next = events.try_next() => next,
                // Whoever does not listen any more has seen all, and a watch costs the API server.
                () = say.closed() => break,
            };
            let Ok(Some(event)) = next else { break };
            match event {
                watcher::Event::Apply(learner) | watcher::Event::InitApply(learner)
                    if is_up(&learner) =>
                {
                    // Its end is seen above.
                    let _ = say.send((learner.name_any(), Instant::now()));
                }
                watcher::Event::InitDone => {
                    listed.send_replace(true);
                }
                _ => {}
            }
        }
    });
    is_listed
        .wait_for(|listed| *listed)
        .await
        .context("the watch ended")?;
    Ok(seen)
}

pub(super) fn is_up(learner: &DynamicObject) -> bool {
    let conditions = learner.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Makes learners, and waits until the controller has visited each.
pub(super) async fn make_learners(
    school: &School,
    class: &str,
    names: &[String],
) -> anyhow::Result<()> {
    let made = futures::stream::iter(names).map(|name| school.learner(name, class));
    made.buffer_unordered(AT_ONCE * 2)
        .try_collect::<Vec<()>>()
        .await?;
    if let Some(last) = names.last() {
        school
            .status(last, "visited", |status| status.is_asleep(0))
            .await?;
    }
    Ok(())
}

/// Waits until a class's pool is full and nothing of it starts.
pub(super) async fn settle(school: &School, class: &str, size: usize) -> anyhow::Result<()> {
    let blank = format!("carrel.dev/class={class},!carrel.dev/learner");
    eventually_every(BETWEEN_LOOKS, "the pool is full", FULL_WITHIN, || async {
        let pods = school.pods(&blank).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok((ready == size && pods.len() == size).then_some(()))
    })
    .await
}

/// How many patches a second the API server takes just now, eight at a time and each worker's of an object of its own: of learners, and, so
/// that other machines and definitions can be compared, of the smallest built-in objects.
pub(super) async fn calibrate(school: &School) -> anyhow::Result<String> {
    let names: Vec<String> = (0..AT_ONCE).map(|n| format!("calibration-{n}")).collect();
    let maps = Api::<ConfigMap>::namespaced(school.plane.client(), NAMESPACE);
    for name in &names {
        school.learner(name, "none").await?;
        let map = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        maps.create(&PostParams::default(), &map).await?;
    }
    let learners = patched(&school.learners(), &names).await?;
    let configured = patched(&maps, &names).await?;
    for name in &names {
        school.remove(name).await?;
        maps.delete(name, &DeleteParams::default()).await?;
    }
    Ok(format!("{learners:.0}, of ConfigMaps {configured:.0}"))
}

/// Patches a second.
async fn patched<K>(api: &Api<K>, names: &[String]) -> anyhow::Result<f64>
where
    K: Clone + DeserializeOwned + Debug,
{
    let until = Instant::now() + CALIBRATION;
    let worker = |name| async move {
        let mut count = 0_u32;
        while Instant::now() < until {
            let patch = Patch::Merge(
                json!({"metadata": {"annotations": {"calibration": count.to_string()}}}),
            );
            api.patch(name, &PatchParams::default(), &patch).await?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    let counts = futures::future::try_join_all(names.iter().map(|name| worker(name))).await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / CALIBRATION.as_secs_f64())
}
