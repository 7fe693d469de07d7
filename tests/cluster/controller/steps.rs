//! A controller that is killed at each of its writes, just before it and just after: the next one goes on from there.

use std::collections::BTreeSet;

use carrel_tests::cluster::school::{SOON, School, Status, is_ready};
use carrel_tests::cluster::{Asked, End, Fate, Proxy, Stop};
use carrel_tests::eventually;
use http::Method;
use serde_json::{Value, json};

use super::{pool_of, school};

/// A write of a wake or of the sleep after it: so many of its method come before it.
struct Write {
    method: Method,
    earlier: usize,
    is_of_sleep: bool,
}

const fn of_wake(method: Method, earlier: usize) -> Write {
    Write {
        method,
        earlier,
        is_of_sleep: false,
    }
}

const fn of_sleep(method: Method) -> Write {
    Write {
        method,
        earlier: 0,
        is_of_sleep: true,
    }
}

/// The pod, its name in the status, its label, Ready; Asleep, the pod's end.
const COLD: [Write; 6] = [
    of_wake(Method::POST, 0),
    of_wake(Method::PUT, 0),
    of_wake(Method::PATCH, 0),
    of_wake(Method::PUT, 1),
    of_sleep(Method::PUT),
    of_sleep(Method::DELETE),
];
/// The name of a pod of the pool in the status, its label, Ready; and, beside Ready, the pod that takes its place in the pool.
const WARM: [Write; 4] = [
    of_wake(Method::PUT, 0),
    of_wake(Method::PATCH, 0),
    of_wake(Method::PUT, 1),
    of_wake(Method::POST, 0),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_be_killed_before_and_after_each_of_its_writes() -> anyhow::Result<()> {
    let test = "a_controller_may_be_killed_before_and_after_each_of_its_writes";
    killed_at_each(test, &COLD, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_be_killed_before_and_after_each_write_of_a_wake_from_the_pool()
-> anyhow::Result<()> {
    let test = "a_controller_may_be_killed_before_and_after_each_write_of_a_wake_from_the_pool";
    killed_at_each(test, &WARM, 1).await
}

/// Somebody else wakes for each write, from a pool of so many.
async fn killed_at_each(test: &str, writes: &[Write], pool: u32) -> anyhow::Result<()> {
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    school.class("free", &pool_of(pool)).await?;
    let mut awake = BTreeSet::new();
    for (number, write) in writes.iter().enumerate() {
        for is_done in [false, true] {
            let name = format!("l{number}-{is_done}");
            let first = school.proxy().await?;
            let leader = school.controller_by(&first.kubeconfig()).await?;
            school.resting(&name, "free").await?;
            pods(&school, awake.len() + pool as usize).await?;
            let mut stop = awaited(&school, &first, &name, write).await?;
            for _ in 0..write.earlier {
                stop.next().await.goes(Fate::Passes);
            }
            let held = stop.next().await;
            if is_done {
                held.is_done_unanswered().await;
                leader.kill()?;
            } else {
                leader.kill()?;
                held.goes(Fate::Lost);
            }
            school.free_lease().await?;
            let next = school.controller().await?;
            let is_over = |status: &Status| {
                if write.is_of_sleep {
                    status.is_asleep(1)
                } else {
                    status.is_ready(1)
                }
            };
            school.status(&name, "as it was to be", is_over).await?;
            if !write.is_of_sleep {
                awake.insert(name);
            }
            // Its own, when it is asleep, is gone; else the next controller would remove it, which is no write of that one's.
            pods(&school, awake.len() + pool as usize).await?;
            next.stop()?;
        }
    }
    judge(&school, &awake, pool).await
}

/// Wakes one, and lets them fall asleep where that is what the write is of: from then on writes of its method wait.
async fn awaited(
    school: &School,
    proxy: &Proxy,
    name: &str,
    write: &Write,
) -> anyhow::Result<Stop> {
    let method = write.method.clone();
    let which = move |asked: &Asked| {
        asked.writes() && asked.method == method && !asked.path.ends_with("/events")
    };
    if !write.is_of_sleep {
        let stop = proxy.stop(which);
        school.wake(name, 0).await?;
        return Ok(stop);
    }
    school.wake(name, 0).await?;
    let up = school.status(name, "awake", |status| status.is_ready(1));
    up.await?;
    let came = school.stand_in.assignments();
    let ours = came.iter().find(|came| came.learner == name);
    let pod = &ours.ok_or(anyhow::anyhow!("{name} has no pod"))?.pod;
    let stop = proxy.stop(which);
    let slept = json!({"ending": "slept", "committed": true});
    school.stand_in.end(pod, &End::with(&slept)).await?;
    Ok(stop)
}

/// Waits until there are so many pods, and all of them run.
async fn pods(school: &School, count: usize) -> anyhow::Result<()> {
    eventually(
        "there are as many pods as there should be",
        SOON,
        || async {
            let pods = school.pods("").await?;
            Ok((pods.len() == count && pods.iter().all(is_ready)).then_some(()))
        },
    )
    .await
}

/// Each has a pod of their own, which took one assignment: that of their only incarnation.
async fn judge(school: &School, awake: &BTreeSet<String>, pool: u32) -> anyhow::Result<()> {
    let mut named = BTreeSet::new();
    for name in awake {
        let up = school.status(name, "awake", |status| status.is_ready(1));
        let status = up.await?;
        assert!(pool == 0 || status.0["startKind"] == "warm", "{name}");
        let uid = status.0["podUid"].as_str().unwrap_or_default().to_owned();
        let came = school.stand_in.assignments();
        let taken = came
            .iter()
            .filter(|came| came.uid == uid && came.refused.is_none());
        let owners: BTreeSet<_> = taken.map(|came| (&came.learner, came.epoch)).collect();
        assert_eq!(owners, [(name, 1)].into(), "{name}");
        named.insert(uid);
    }
    assert_eq!(named.len(), awake.len(), "two share a pod");
    let pods = school.pods("").await?;
    let uids: BTreeSet<_> = pods
        .into_iter()
        .filter_map(|pod| pod.metadata.uid)
        .collect();
    assert!(named.is_subset(&uids), "{named:?} {uids:?}");
    Ok(())
}
