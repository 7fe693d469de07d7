//! Controllers that die, and two of them; pods that die.

use std::time::{Duration, Instant};

use carrel_tests::cluster::End;
use carrel_tests::cluster::school::{SOON, School, names};
use carrel_tests::eventually;
use serde_json::Value;

use super::{pool_of, school};

/// From the word to the leader to end until a standby has woken somebody: it looks every 2 s whether the lease is free.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// The same from a leader's death: the lease lasts 15 s, which the standby counts by its own looks.
const RUN_OUT: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_dies_is_followed_by_another_in_the_next_epoch() -> anyhow::Result<()> {
    let test = "a_pod_that_dies_is_followed_by_another_in_the_next_epoch";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(1)).await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    let first = school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let came = school.stand_in.assignments();
    school.stand_in.end(&came[0].pod, &End::killed()).await?;
    // It was ready, so it sleeps until somebody asks again, as a gateway with an undelivered message does.
    let died = school
        .status("ada", "dead", |status| status.pod().is_empty())
        .await?;
    assert_eq!(died.condition("DataAtRisk"), ("True", "DiedUnsaved"));
    school.wake("ada", 1).await?;
    let second = school
        .status("ada", "awake again", |status| status.is_ready(2))
        .await?;
    assert_ne!(first.pod(), second.pod());
    eventually("the dead pod is gone", SOON, || async {
        let pods = school.pods("carrel.dev/learner=ada").await?;
        Ok((names(&pods) == [second.pod()]).then_some(()))
    })
    .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_evicted_is_followed_by_another_that_restores() -> anyhow::Result<()> {
    let test = "a_pod_that_is_evicted_is_followed_by_another_that_restores";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(1)).await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    let first = school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let came = school.stand_in.assignments();
    school.stand_in.end(&came[0].pod, &End::Evicted).await?;
    let evicted = school
        .status("ada", "evicted", |status| status.pod().is_empty())
        .await?;
    let why = "Evicted: The node was low on resource: memory.";
    assert_eq!(evicted.condition("DataAtRisk"), ("True", "DiedUnsaved"));
    assert_eq!(evicted.message("DataAtRisk"), why);
    for reason in ["DataAtRisk", "PodFailed"] {
        eventually(reason, SOON, || async {
            Ok((school.events(reason).await? == [why]).then_some(()))
        })
        .await?;
    }
    school.wake("ada", 1).await?;
    let second = school
        .status("ada", "awake again", |status| status.is_ready(2))
        .await?;
    assert_ne!(first.pod(), second.pod());
    assert_eq!(second.condition("Restored"), ("True", "FromHead"));
    eventually("the evicted pod is gone", SOON, || async {
        let pods = school.pods("carrel.dev/learner=ada").await?;
        Ok((names(&pods) == [second.pod()]).then_some(()))
    })
    .await?;
    controller.stop()
}

/// Wakes one whom only another than the one that went then can wake, in time; how long after is printed.
async fn wakes(school: &School, name: &str, gone: Instant, bound: Duration) -> anyhow::Result<()> {
    school.wake(name, 0).await?;
    let up = school.status(name, "awake by another", |status| status.is_ready(1));
    up.await?;
    let took = gone.elapsed();
    println!("{name} is awake {took:?} after the leader is gone");
    assert!(took <= bound, "{name}: {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_leads_when_the_leader_is_gone_and_finds_what_it_left() -> anyhow::Result<()> {
    let test = "a_standby_leads_when_the_leader_is_gone_and_finds_what_it_left";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    school.class("free", &pool_of(1)).await?;
    for name in ["ada", "bob", "cyd"] {
        school.learner(name, "free").await?;
    }
    let leader = school.controller().await?;
    school.wake("ada", 0).await?;
    let ada = school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let standby = school.controller().await?;
    let gone = Instant::now();
    leader.stop()?;
    wakes(&school, "bob", gone, GIVEN_BACK).await?;
    let last = school.controller().await?;
    let gone = Instant::now();
    standby.kill()?;
    wakes(&school, "cyd", gone, RUN_OUT).await?;
    let still = school
        .status("ada", "still awake", |status| status.is_ready(1))
        .await?;
    assert_eq!(ada.pod(), still.pod(), "nobody touched it");
    let told: Vec<_> = school
        .stand_in
        .assignments()
        .into_iter()
        .map(|came| came.learner)
        .collect();
    assert_eq!(told, ["ada", "bob", "cyd"]);
    last.stop()
}
