//! A controller that is killed at each of its writes, just before it and just after: the next one goes on from there.

use std::collections::BTreeSet;

use carrel_tests::cluster::school::{SOON, School, Status};
use carrel_tests::cluster::{Asked, End, Fate};
use carrel_tests::eventually;
use serde_json::{Value, json};

use super::{pool_of, school};

/// The writes of a cold wake and a sleep in their order: the pod, its name in the status, its label, Ready; Asleep, the pod's end.
const WRITES: usize = 6;
/// After so many of them the learner is ready.
const UNTIL_READY: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_be_killed_before_and_after_each_of_its_writes() -> anyhow::Result<()> {
    let test = "a_controller_may_be_killed_before_and_after_each_of_its_writes";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    school.class("free", &pool_of(0)).await?;
    let mut awake = BTreeSet::new();
    for number in 0..WRITES {
        for is_done in [false, true] {
            let name = format!("l{number}-{is_done}");
            killed_at(&school, &name, number, is_done).await?;
            if number < UNTIL_READY {
                awake.insert(name);
            }
        }
    }
    let last = school.controller().await?;
    let mut named = BTreeSet::new();
    for name in &awake {
        let up = school.status(name, "awake", |status| {
            status.condition("Ready").0 == "True"
        });
        let status = up.await?;
        let uid = status.0["podUid"].as_str().unwrap_or_default().to_owned();
        let came = school.stand_in.assignments();
        let taken = came
            .iter()
            .filter(|came| came.uid == uid && came.refused.is_none());
        let owners: BTreeSet<_> = taken.map(|came| (&came.learner, came.epoch)).collect();
        assert_eq!(owners, [(name, status.epoch())].into(), "{name}");
        named.insert(uid);
    }
    assert_eq!(named.len(), awake.len(), "two share a pod");
    eventually("no pod is left over", SOON, || async {
        let pods = school.pods("").await?;
        let uids = pods.into_iter().filter_map(|pod| pod.metadata.uid);
        Ok((uids.collect::<BTreeSet<_>>() == named).then_some(()))
    })
    .await?;
    last.stop()
}

/// Wakes one, and puts it to sleep, with a controller that is killed at this write; the next one finishes it.
async fn killed_at(
    school: &School,
    name: &str,
    number: usize,
    is_done: bool,
) -> anyhow::Result<()> {
    let proxy = school.proxy().await?;
    let first = school.controller_by(&proxy.kubeconfig()).await?;
    school.resting(name, "free").await?;
    let mut stop = proxy.stop(|asked: &Asked| asked.writes() && !asked.path.ends_with("/events"));
    school.wake(name, 0).await?;
    for passed in 0..number {
        stop.next().await.goes(Fate::Passes);
        if passed + 1 == UNTIL_READY {
            falls_asleep(school, name).await?;
        }
    }
    let held = stop.next().await;
    if is_done {
        held.is_done_unanswered().await;
        first.kill()?;
    } else {
        first.kill()?;
        held.goes(Fate::Lost);
    }
    school.free_lease().await?;
    let second = school.controller().await?;
    let is_over = |status: &Status| {
        if number < UNTIL_READY {
            status.condition("Ready") == ("True", "Ready")
        } else {
            status.is_asleep(1)
        }
    };
    school.status(name, "as it was to be", is_over).await?;
    if number >= UNTIL_READY {
        // Else the next controller removes it, which is no write of the next learner's.
        eventually("its pod is gone", SOON, || async {
            let left = school.pods(&format!("carrel.dev/learner={name}")).await?;
            Ok(left.is_empty().then_some(()))
        })
        .await?;
    }
    second.stop()
}

/// Its sidecar has ended by itself.
async fn falls_asleep(school: &School, name: &str) -> anyhow::Result<()> {
    let up = school.status(name, "awake", |status| status.is_ready(1));
    up.await?;
    let came = school.stand_in.assignments();
    let ours = came.iter().find(|came| came.learner == name);
    let pod = &ours.ok_or(anyhow::anyhow!("{name} has no pod"))?.pod;
    let slept = json!({"ending": "slept", "committed": true});
    school.stand_in.end(pod, &End::with(&slept)).await
}
