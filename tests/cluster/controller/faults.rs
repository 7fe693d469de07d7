//! Controllers that die, and two of them; pods that die.

use carrel_tests::cluster::End;
use carrel_tests::cluster::school::{SOON, names};
use carrel_tests::eventually;
use serde_json::Value;

use super::{pool_of, school};

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
    leader.stop()?;
    school.wake("bob", 0).await?;
    school
        .status("bob", "awake by the standby", |status| status.is_ready(1))
        .await?;
    let last = school.controller().await?;
    standby.kill()?;
    school.wake("cyd", 0).await?;
    school
        .status("cyd", "awake after the lease has run out", |status| {
            status.is_ready(1)
        })
        .await?;
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
