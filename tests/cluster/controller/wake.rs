//! Waking: from the pool, without one, and who is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use carrel_protocol::{Code, Problem};
use carrel_tests::cluster::school::{CONTROLLER, Controller, SOON, School};
use carrel_tests::cluster::{Answer, End, Mark, Script, Write, counted, tally};
use carrel_tests::eventually;
use serde_json::{Value, json};

use super::{pool_of, school};

/// What the controller wrote, leases apart.
fn ours(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut ours = tally(writes, CONTROLLER);
    ours.retain(|what, _| !what.ends_with(" leases"));
    ours
}

fn counts<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.map(|(what, count)| (what.to_owned(), count)).into()
}

/// By verb and resource a controller has written since as often as its metrics say, its lease apart, which is renewed meanwhile.
pub(super) async fn counts_its_writes(
    school: &School,
    controller: &Controller,
    since: Mark,
) -> anyhow::Result<()> {
    let last = Mutex::default();
    let same = eventually("it counts what it writes", SOON, || async {
        let written = ours(&school.plane.writes_since(since).await?);
        let mut said = counted(&controller.metrics().await?);
        said.retain(|what, _| !what.ends_with(" leases"));
        let is_same = written == said;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = (written, said);
        Ok(is_same.then_some(()))
    });
    let same = same.await;
    same.with_context(|| format!("written, said: {last:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_from_the_pool_costs_three_writes_and_one_without_four() -> anyhow::Result<()> {
    let test = "a_wake_from_the_pool_costs_three_writes_and_one_without_four";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let beginning = school.plane.mark().await?;
    let controller = school.controller().await?;
    school.class("warm", &pool_of(1)).await?;
    school.class("cold", &pool_of(0)).await?;
    school.learner("ada", "warm").await?;
    school.learner("bob", "cold").await?;
    for name in ["ada", "bob"] {
        school
            .status(name, "first visit", |status| status.is_asleep(0))
            .await?;
    }
    let pool = school.pool(1).await?;

    let mark = school.plane.mark().await?;
    school.wake("ada", 0).await?;
    let ready = school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    assert_eq!(Some(ready.pod()), pool[0].metadata.name.as_deref());
    assert_eq!(ready.0["startKind"], "warm");
    // The pool is full again: one pod more was made for it.
    school.pool(1).await?;
    let writes = school.plane.writes_since(mark).await?;
    let warm = [
        ("update learners/status", 2),
        ("patch pods", 1),
        ("create pods", 1),
    ];
    assert_eq!(ours(&writes), counts(warm), "{}", controller.log()?);

    let mark = school.plane.mark().await?;
    school.wake("bob", 0).await?;
    let ready = school
        .status("bob", "awake", |status| status.is_ready(1))
        .await?;
    assert_eq!(ready.0["startKind"], "cold");
    let writes = school.plane.writes_since(mark).await?;
    let cold = [
        ("update learners/status", 2),
        ("patch pods", 1),
        ("create pods", 1),
    ];
    assert_eq!(ours(&writes), counts(cold), "{}", controller.log()?);
    let metrics = controller.metrics().await?;
    for line in [
        r#"carrel_learners{state="Ready",class="warm"} 1"#,
        r#"carrel_wake_duration_seconds_count{start_kind="warm",stage="schedule"} 1"#,
        r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="schedule"} 1"#,
        "carrel_wakes_waiting 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
    counts_its_writes(&school, &controller, beginning).await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_class_default_is_there_when_no_object_says_otherwise() -> anyhow::Result<()> {
    let test = "the_class_default_is_there_when_no_object_says_otherwise";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.learner("ada", "default").await?;
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_gets_another_pod_and_a_higher_epoch_above_the_fence()
-> anyhow::Result<()> {
    let test = "whoever_is_refused_gets_another_pod_and_a_higher_epoch_above_the_fence";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(2)).await?;
    school.learner("ada", "free").await?;
    school.pool(2).await?;
    let refusal = Problem::new(Code::Conflict, "the pod is assigned already");
    let refuses = Script {
        assignment: Answer::Refuses(Box::new(refusal)),
        ..Script::default()
    };
    school.stand_in.play("ada", refuses);
    school.wake("ada", 0).await?;
    school
        .status("ada", "refused once", |status| status.epoch() > 1)
        .await?;
    school.stand_in.play("ada", Script::default());
    let ready = school
        .status("ada", "awake", |status| {
            status.condition("Ready").0 == "True"
        })
        .await?;
    let tried: Vec<_> = school
        .stand_in
        .assignments()
        .into_iter()
        .filter(|came| came.learner == "ada")
        .collect();
    let pods: BTreeSet<&str> = tried.iter().map(|came| came.uid.as_str()).collect();
    let epochs: Vec<u64> = tried.iter().map(|came| came.epoch).collect();
    assert_eq!(pods.len(), tried.len(), "no pod was asked twice: {tried:?}");
    assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
    assert_eq!(epochs.last(), Some(&ready.epoch()));

    // The store knows of an epoch that this object never had: the sidecar says so with its last word.
    school.learner("bob", "free").await?;
    school.stand_in.play(
        "bob",
        Script {
            phase: carrel_protocol::sidecar::Phase::Restoring,
            ..Script::default()
        },
    );
    school.wake("bob", 0).await?;
    let first = school
        .status("bob", "restoring", |status| status.epoch() == 1)
        .await?;
    let came = eventually(
        "bob's pod is told",
        carrel_tests::cluster::school::SOON,
        || async {
            Ok(school
                .stand_in
                .assignments()
                .into_iter()
                .find(|came| came.learner == "bob"))
        },
    )
    .await?;
    assert_eq!(first.pod(), came.pod.name);
    school.stand_in.play("bob", Script::default());
    let refused = json!({"ending": "died", "fence": 40, "reason": "the epoch is below the fence"});
    school.stand_in.end(&came.pod, &End::with(&refused)).await?;
    let ready = school
        .status("bob", "awake above the fence", |status| {
            status.condition("Ready").0 == "True"
        })
        .await?;
    assert_eq!(ready.epoch(), 41, "{}", controller.log()?);
    controller.stop()
}
