//! A controller whose account is the chart's, in a cluster that enforces what the chart makes: nothing that it does is refused.

use carrel_tests::cluster::End;
use carrel_tests::cluster::school::{CONTROLLER, NAMESPACE, SOON, School};
use carrel_tests::eventually;
use serde_json::{Value, json};

use super::installed;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_wakes_learners_with_the_rights_that_the_chart_gives_it() -> anyhow::Result<()>
{
    let test = "a_controller_wakes_learners_with_the_rights_that_the_chart_gives_it";
    let Some(chart) = installed(test, 1, &[]).await? else {
        return Ok(());
    };
    let access = chart.plane.service_account(NAMESPACE, CONTROLLER)?;
    let school = School::on(chart.plane, access, &Value::Null).await?;
    let controller = school.controller().await?;
    let class = json!({"warmPool": {"size": 1}, "isolation": {"userNamespace": false}});
    school.class("free", &class).await?;
    school.learner("ada", "free").await?;
    school.pool(1).await?;
    school.wake("ada", 0).await?;
    school
        .status("ada", "awake", |status| status.is_ready(1))
        .await?;
    let slept = json!({"ending": "slept", "committed": true, "snapshot_id": "5a".repeat(32)});
    let came = school.stand_in.assignments();
    school
        .stand_in
        .end(&came[0].pod, &End::with(&slept))
        .await?;
    school
        .status("ada", "asleep", |status| status.is_asleep(1))
        .await?;
    eventually("its pod is gone", SOON, || async {
        let theirs = school.pods("carrel.dev/learner=ada").await?;
        Ok(theirs.is_empty().then_some(()))
    })
    .await?;
    // A class that no pod can be made of: the refusal becomes an event.
    let wrong = json!({"isolation": {"runtimeClassName": "none-such", "userNamespace": false}});
    school.class("wrong", &wrong).await?;
    school.learner("bob", "wrong").await?;
    school.wake("bob", 0).await?;
    eventually("somebody is told", SOON, || async {
        let words = ["get", "events", "--namespace", NAMESPACE, "-o", "json"];
        let list: Value = serde_json::from_str(&school.plane.kubectl(&words)?)?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let about_bob = |event: &Value| event["involvedObject"]["name"] == "bob";
        Ok(events.iter().any(about_bob).then_some(()))
    })
    .await?;
    let log = controller.log()?;
    assert!(!log.contains("forbidden: User"), "{log}");
    controller.stop()
}
