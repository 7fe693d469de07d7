//! Many at once: every wake gets one pod, whoever dies or stands still meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carrel_tests::cluster::school::{
    CONTROLLER, LEARNER_NAMESPACES, SOON, School, Status, names as pod_names,
};
use carrel_tests::cluster::{End, Script, tally};
use carrel_tests::eventually;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::{pool_of, school};

/// So many learners wake.
const LEARNERS: usize = 60;
/// So many pods a pool has: fewer than those who wake at once.
const POOL: u32 = 20;
/// So many pods more than another a learner namespace may have.
const UNEVEN: usize = 6;
/// So many leaders are killed; after each the lease has to run out.
const KILLS: u32 = 3;

fn names() -> Vec<String> {
    (0..LEARNERS).map(|number| format!("l{number}")).collect()
}

pub(super) async fn enrol(school: &School, class: &str) -> anyhow::Result<()> {
    let made = futures::stream::iter(names())
        .map(|name| async move { school.learner(&name, class).await });
    made.buffer_unordered(8).try_collect().await
}

pub(super) async fn wake_all(school: &School) -> anyhow::Result<()> {
    let woken =
        futures::stream::iter(names()).map(|name| async move { school.wake(&name, 0).await });
    woken.buffer_unordered(8).try_collect().await
}

/// Waits until everybody is ready: their statuses.
pub(super) async fn all_ready(school: &School) -> anyhow::Result<BTreeMap<String, Status>> {
    let mut ready = BTreeMap::new();
    for name in names() {
        let is_up = |status: &Status| status.condition("Ready") == ("True", "Ready");
        let status = school.status(&name, "awake", is_up).await?;
        ready.insert(name, status);
    }
    Ok(ready)
}

/// Each learner has one pod, which took one assignment: that of the learner's epoch.
pub(super) async fn judge(school: &School, ready: &BTreeMap<String, Status>) -> anyhow::Result<()> {
    let mut owners = BTreeMap::new();
    for came in school
        .stand_in
        .assignments()
        .into_iter()
        .filter(|came| came.refused.is_none())
    {
        let owner = (came.learner.clone(), came.epoch);
        let before = owners.insert(came.uid.clone(), owner.clone());
        assert!(
            before.is_none_or(|before| before == owner),
            "{} took two learners",
            came.uid
        );
    }
    let mut named = BTreeSet::new();
    for (name, status) in ready {
        let uid = status.0["podUid"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            owners.get(&uid),
            Some(&(name.clone(), status.epoch())),
            "{name}: {}",
            status.0
        );
        assert!(named.insert(uid), "{name} shares its pod");
    }
    // What took an assignment that counts no more is ended.
    eventually("no pod is anybody else's", SOON, || async {
        let pods = school.pods("carrel.dev/learner").await?;
        let left = pods
            .iter()
            .filter(|pod| !named.contains(pod.metadata.uid.as_deref().unwrap_or_default()));
        Ok((left.count() == 0).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_storm_gives_each_learner_one_pod_though_the_leader_is_killed_again_and_again()
-> anyhow::Result<()> {
    let test =
        "a_mixed_storm_gives_each_learner_one_pod_though_the_leader_is_killed_again_and_again";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    school.class("free", &pool_of(POOL)).await?;
    enrol(&school, "free").await?;
    let mut leader = school.controller().await?;
    school.pool(POOL as usize).await?;
    let mut standby = school.controller().await?;
    let storm = async {
        wake_all(&school).await?;
        all_ready(&school).await
    };
    let mut storm = std::pin::pin!(storm);
    // Killed whenever some more have been told whose they are, at whatever step the others are then.
    let (mut told, mut kills) = (0, 0);
    let ready = loop {
        tokio::select! {
            ready = &mut storm => break ready?,
            count = more_than(&school, told), if kills < KILLS => {
                (told, kills) = (count + 12, kills + 1);
                leader.kill()?;
                leader = std::mem::replace(&mut standby, school.controller().await?);
            }
        }
    };
    assert!(kills > 1, "nobody was killed again");
    judge(&school, &ready).await?;
    drop((leader, standby));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_storm_empties_its_pool_and_fills_it_again_with_no_pod_too_many()
-> anyhow::Result<()> {
    let test = "a_warm_storm_empties_its_pool_and_fills_it_again_with_no_pod_too_many";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controllers = [school.controller().await?, school.controller().await?];
    school.class("free", &pool_of(POOL)).await?;
    enrol(&school, "free").await?;
    for name in names() {
        let rests = school.status(&name, "first visit", |status| status.is_asleep(0));
        rests.await?;
    }
    let pool = pod_names(&school.pool(POOL as usize).await?);
    let mark = school.plane.mark().await?;
    wake_all(&school).await?;
    let ready = all_ready(&school).await?;
    judge(&school, &ready).await?;
    each_once(&ready);
    let came = school.stand_in.assignments();
    assert_eq!(came.len(), LEARNERS, "each was told once, and none refused");
    // What was in the pool came to somebody, and is called warm; what came after it may be either.
    let warm = ready
        .values()
        .filter(|status| status.0["startKind"] == "warm");
    let warm: BTreeSet<_> = warm.map(|status| status.pod().to_owned()).collect();
    assert!(
        pool.iter().all(|pod| warm.contains(pod)),
        "{pool:?} {warm:?}"
    );
    school.pool(POOL as usize).await?;
    spread_evenly(&school).await?;
    let writes = school.plane.writes_since(mark).await?;
    let mut ours = tally(&writes, CONTROLLER);
    ours.retain(|what, _| what.ends_with(" pods"));
    let each = ["create pods", "patch pods"].map(|what| (what.to_owned(), LEARNERS));
    assert_eq!(
        ours,
        each.into(),
        "one for each who wakes, and none removed"
    );
    drop(controllers);
    Ok(())
}

/// Waits until more assignments than so many came: how many. For ever, when no more come.
async fn more_than(school: &School, count: usize) -> usize {
    let more = eventually("more assignments come", Duration::MAX, || async {
        let came = school.stand_in.assignments().len();
        Ok((came > count).then_some(came))
    });
    more.await.unwrap_or(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_does_no_harm_when_it_goes_on() -> anyhow::Result<()> {
    let test = "a_leader_that_stood_still_does_no_harm_when_it_goes_on";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    school.class("free", &pool_of(10)).await?;
    enrol(&school, "free").await?;
    let paused = school.controller().await?;
    school.pool(10).await?;
    let standby = school.controller().await?;
    paused.pause(true)?;
    wake_all(&school).await?;
    let ready = all_ready(&school).await?;
    paused.pause(false)?;
    judge(&school, &ready).await?;
    // It has heard that another leads, and ended.
    eventually("the old leader ends", SOON, || async {
        Ok(paused.log()?.contains("the lease").then_some(()))
    })
    .await?;
    drop((paused, standby));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_class_replaces_blank_pods_and_touches_nobody_who_is_awake() -> anyhow::Result<()>
{
    let test = "a_changed_class_replaces_blank_pods_and_touches_nobody_who_is_awake";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(3)).await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    let ada = school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let before = school.pool(3).await?;
    let mut changed = pool_of(3);
    changed["resources"] = json!({"memory": "64Mi"});
    school.class("free", &changed).await?;
    eventually("all blank pods are new", SOON, || async {
        let blank = school.pool(3).await?;
        Ok(blank
            .iter()
            .all(|pod| hash(pod) != hash(&before[0]))
            .then_some(()))
    })
    .await?;
    let still = school
        .status("ada", "still awake", |status| status.is_ready(1))
        .await?;
    assert_eq!(still.pod(), ada.pod());
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_changes_in_a_storm_leaves_no_blank_pod_of_old_and_touches_nobody()
-> anyhow::Result<()> {
    let test = "a_class_that_changes_in_a_storm_leaves_no_blank_pod_of_old_and_touches_nobody";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(POOL)).await?;
    enrol(&school, "free").await?;
    let before = hash(&school.pool(POOL as usize).await?[0]);
    let changes = async {
        more_than(&school, LEARNERS / 3).await;
        let mut changed = pool_of(POOL);
        changed["resources"] = json!({"memory": "64Mi"});
        school.class("free", &changed).await
    };
    let (woken, changed) = tokio::join!(wake_all(&school), changes);
    woken?;
    changed?;
    let ready = all_ready(&school).await?;
    judge(&school, &ready).await?;
    each_once(&ready);
    let blank = school.pool(POOL as usize).await?;
    assert!(blank.iter().all(|pod| hash(pod) != before));
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_pool_nobody_gets_the_pod_that_was_made_for_another() -> anyhow::Result<()>
{
    let test = "where_there_is_no_pool_nobody_gets_the_pod_that_was_made_for_another";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    enrol(&school, "free").await?;
    wake_all(&school).await?;
    let ready = all_ready(&school).await?;
    judge(&school, &ready).await?;
    each_once(&ready);
    spread_evenly(&school).await?;
    controller.stop()
}

/// The learner namespaces have as many pods each, or nearly so.
async fn spread_evenly(school: &School) -> anyhow::Result<()> {
    let mut counts = BTreeMap::from(LEARNER_NAMESPACES.map(|name| (name.to_owned(), 0)));
    for pod in school.pods("").await? {
        *counts
            .entry(pod.metadata.namespace.unwrap_or_default())
            .or_default() += 1;
    }
    let (most, fewest) = (counts.values().max(), counts.values().min());
    let more = most.zip(fewest).map(|(most, fewest)| most - fewest);
    assert!(more <= Some(UNEVEN), "{counts:?}");
    Ok(())
}

/// Nobody had to be woken a second time.
fn each_once(ready: &BTreeMap<String, Status>) {
    for (name, status) in ready {
        assert_eq!(status.epoch(), 1, "{name}: {}", status.0);
    }
}

/// Of what a pod was made.
fn hash(pod: &k8s_openapi::api::core::v1::Pod) -> String {
    pod.metadata.labels.clone().unwrap_or_default()["carrel.dev/class-hash"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_live_cap_the_quietest_makes_room() -> anyhow::Result<()> {
    let test = "at_the_live_cap_the_quietest_makes_room";
    let Some(school) = school(test, &json!({"fleet": {"maxLive": 2}})).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    let slept = json!({"ending": "slept", "committed": true});
    school.stand_in.otherwise(Script {
        asleep: Some(End::with(&slept)),
        ..Script::default()
    });
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob", "cyd"] {
        school.learner(name, "free").await?;
    }
    for name in ["ada", "bob"] {
        school.wake(name, 0).await?;
        school
            .status(name, "awake", |status| status.is_ready(1))
            .await?;
    }
    school.wake("cyd", 0).await?;
    school
        .status("cyd", "awake", |status| status.is_ready(1))
        .await?;
    // A pod is told again until it is heard to obey.
    let slept: BTreeSet<_> = school.stand_in.sleeps().into_iter().collect();
    assert_eq!(slept.len(), 1, "one was enough");
    let asleep: Vec<_> = futures::stream::iter(["ada", "bob"])
        .filter_map(|name| {
            let status = school.status(name, "a status", |_| true);
            async move {
                status
                    .await
                    .ok()
                    .filter(|status| status.is_asleep(1))
                    .map(|_| name)
            }
        })
        .collect()
        .await;
    assert_eq!(asleep.len(), 1, "{asleep:?}");
    controller.stop()
}
