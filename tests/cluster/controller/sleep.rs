//! Falling asleep and what an object's state wants, and what happens to a learner's pod when its object goes.

use carrel_tests::cluster::school::{CONTROLLER, SOON, Status};
use carrel_tests::cluster::{End, Script, tally};
use carrel_tests::eventually;
use serde_json::{Value, json};

use super::{pool_of, school};

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_costs_two_writes_and_leaves_no_pod() -> anyhow::Result<()> {
    let test = "a_sleep_costs_two_writes_and_leaves_no_pod";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let came = school.stand_in.assignments();
    let mark = school.plane.mark().await?;
    let snapshot = "5a".repeat(32);
    let slept = json!({"ending": "slept", "committed": true, "snapshot_id": snapshot});
    school
        .stand_in
        .end(&came[0].pod, &End::with(&slept))
        .await?;
    let asleep = school
        .status("ada", "asleep", |status| status.is_asleep(1))
        .await?;
    assert_eq!(asleep.condition("Snapshotted"), ("True", "Saved"));
    assert_eq!(asleep.0["snapshotId"], snapshot);
    eventually("its pod is gone", SOON, || async {
        Ok(school
            .pods("carrel.dev/learner=ada")
            .await?
            .is_empty()
            .then_some(()))
    })
    .await?;
    let writes = school.plane.writes_since(mark).await?;
    let mut ours = tally(&writes, CONTROLLER);
    ours.retain(|what, _| !what.ends_with(" leases"));
    let expected = [("delete pods", 1), ("update learners/status", 1)];
    assert_eq!(
        ours,
        expected
            .map(|(what, count)| (what.to_owned(), count))
            .into(),
        "{}",
        controller.log()?
    );

    // Awake again, with the next epoch, because somebody asks for more than the one that slept.
    school.wake("ada", 1).await?;
    school
        .status("ada", "awake again", |status| status.is_ready(2))
        .await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_whose_object_is_deleted_has_no_pod_and_one_made_anew_begins_again()
-> anyhow::Result<()> {
    let test = "a_learner_whose_object_is_deleted_has_no_pod_and_one_made_anew_begins_again";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    school.remove("ada").await?;
    eventually("its pod is gone", SOON, || async {
        Ok(school.pods("").await?.is_empty().then_some(()))
    })
    .await?;
    school.learner("ada", "free").await?;
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    assert_eq!(school.pods("carrel.dev/learner=ada").await?.len(), 1);
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_learners_object_went_while_no_controller_ran_goes_when_one_does()
-> anyhow::Result<()> {
    let test = "a_pod_whose_learners_object_went_while_no_controller_ran_goes_when_one_does";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob"] {
        school.learner(name, "free").await?;
        school.wake(name, 0).await?;
        let up = school.status(name, "awake", |status| status.is_ready(1));
        up.await?;
    }
    controller.stop()?;
    school.remove("ada").await?;
    let controller = school.controller().await?;
    eventually("her pod is gone", SOON, || async {
        let pods = school.pods("carrel.dev/learner=ada").await?;
        Ok(pods.is_empty().then_some(()))
    })
    .await?;
    let still = school.status("bob", "awake", |status| status.is_ready(1));
    still.await?;
    assert_eq!(school.pods("").await?.len(), 1, "his stays");
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_run_is_awake_without_being_asked_for_and_nobody_wakes_who_is_to_sleep()
-> anyhow::Result<()> {
    let test = "who_is_to_run_is_awake_without_being_asked_for_and_nobody_wakes_who_is_to_sleep";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    let slept = End::with(&json!({"ending": "slept", "committed": true}));
    school.stand_in.otherwise(Script {
        asleep: Some(slept.clone()),
        ..Script::default()
    });
    school.class("free", &pool_of(0)).await?;
    for name in ["ada", "bob"] {
        school.resting(name, "free").await?;
    }
    let ada = async |what: &'static str, is_so: fn(&Status) -> bool| {
        school.status("ada", what, is_so).await
    };
    school.change("ada", &json!({"state": "Running"})).await?;
    ada("awake", |status| status.is_ready(1)).await?;
    // Also when it falls asleep by itself.
    let came = school.stand_in.assignments();
    school.stand_in.end(&came[0].pod, &slept).await?;
    ada("awake again", |status| status.is_ready(2)).await?;

    school.change("ada", &json!({"state": "Asleep"})).await?;
    ada("asleep", |status| status.is_asleep(2)).await?;
    school.wake("ada", 2).await?;
    // Whoever is asked for after her is awake, and she is not.
    school.wake("bob", 0).await?;
    let up = school.status("bob", "awake", |status| status.is_ready(1));
    up.await?;
    ada("asleep still", |status| status.is_asleep(2)).await?;
    let told = school.stand_in.assignments().into_iter();
    let told: Vec<_> = told.map(|came| (came.learner, came.epoch)).collect();
    let expected = [("ada", 1_u64), ("ada", 2), ("bob", 1)];
    assert_eq!(told, expected.map(|(name, epoch)| (name.to_owned(), epoch)));
    eventually("her pod is gone", SOON, || async {
        let pods = school.pods("carrel.dev/learner=ada").await?;
        Ok(pods.is_empty().then_some(()))
    })
    .await?;
    // The wish has waited.
    school.change("ada", &json!({"state": "Auto"})).await?;
    ada("awake once more", |status| status.is_ready(3)).await?;
    controller.stop()
}
