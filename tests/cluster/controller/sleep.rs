//! Falling asleep, and what happens to a learner's pod when its object goes.

use carrel_tests::cluster::school::{CONTROLLER, SOON};
use carrel_tests::cluster::{End, tally};
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
