//! What is told of learners who are in trouble, as kubectl shows it.

use std::collections::BTreeMap;

use anyhow::ensure;
use carrel_tests::cluster::End;
use carrel_tests::cluster::school::{NAMESPACE, SOON, School};
use carrel_tests::eventually;
use serde_json::{Value, json};

use super::wake::counts_its_writes;
use super::{pool_of, school};

/// How often each reason was told of an object. Two events of one reason are one too many.
fn told(school: &School, kind: &str, name: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let whose = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let words = ["get", "events", "--namespace", NAMESPACE, "-o", "json"];
    let words = [&words[..], &["--field-selector", &whose]].concat();
    let said: Value = serde_json::from_str(&school.plane.kubectl(&words)?)?;
    let mut told = BTreeMap::new();
    for event in said["items"].as_array().into_iter().flatten() {
        let reason = event["reason"].as_str().unwrap_or_default().to_owned();
        let count = event["series"]["count"].as_u64().unwrap_or(1);
        ensure!(event["type"] == "Warning", "{event}");
        ensure!(told.insert(reason, count).is_none(), "once more: {event}");
    }
    Ok(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trouble_that_comes_again_is_counted_in_one_event_and_each_has_its_reason()
-> anyhow::Result<()> {
    let test = "a_trouble_that_comes_again_is_counted_in_one_event_and_each_has_its_reason";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let beginning = school.plane.mark().await?;
    let controller = school.controller().await?;
    school.class("free", &pool_of(0)).await?;
    let mut refused = pool_of(0);
    refused["isolation"]["runtimeClassName"] = json!("no-such");
    school.class("refused", &refused).await?;
    refused["warmPool"]["size"] = json!(1);
    school.class("dry", &refused).await?;
    let learners = [
        ("ada", "refused"),
        ("bob", "no-such"),
        ("cyd", "free"),
        ("dan", "free"),
    ];
    for (name, class) in learners {
        school.learner(name, class).await?;
        school.wake(name, 0).await?;
    }
    for name in ["cyd", "dan"] {
        let up = school.status(name, "awake", |status| status.is_ready(1));
        up.await?;
    }
    let came = school.stand_in.assignments();
    let cyds = came.iter().find(|came| came.learner == "cyd");
    let cyds = &cyds.ok_or(anyhow::anyhow!("cyd has no pod"))?.pod;
    school.stand_in.end(cyds, &End::killed()).await?;
    for name in ["ada", "bob"] {
        let given_up = school.status(name, "given up", |status| {
            status.condition("Assigned").1 == "GivenUp"
        });
        given_up.await?;
    }
    for (name, events) in [
        ("ada", vec![("PodFailed", 4), ("GaveUp", 1)]),
        ("bob", vec![("ClassUnusable", 5)]),
        ("cyd", vec![("DataAtRisk", 1), ("PodFailed", 1)]),
        ("dan", vec![]),
    ] {
        let events = events
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count));
        let expected: BTreeMap<String, u64> = events.collect();
        eventually(&format!("{name} has {expected:?}"), SOON, || async {
            Ok((told(&school, "Learner", name)? == expected).then_some(()))
        })
        .await?;
    }
    eventually("of a pool whose pods are refused, too", SOON, || async {
        let told = told(&school, "LearnerClass", "dry")?;
        Ok(told.keys().eq(["PoolPodFailed"]).then_some(()))
    })
    .await?;
    let notes = school.events("PoolPodFailed").await?;
    let begins = "no pod for its pool is made for ";
    let why = "RuntimeClass \"no-such\" not found";
    assert!(
        notes
            .iter()
            .all(|note| note.starts_with(begins) && note.contains(why)),
        "{notes:?}"
    );
    counts_its_writes(&school, &controller, beginning).await?;
    controller.stop()
}
