//! An API server that takes calls and does not answer: each call is given up in time, and what it was for is done by another.

use std::collections::BTreeSet;

use carrel_tests::cluster::school::{CONTROLLER, SOON, names};
use carrel_tests::cluster::{Asked, End, Fate, tally};
use carrel_tests::eventually;
use http::Method;
use serde_json::{Value, json};

use super::{pool_of, school};

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_gives_up_a_call_that_is_not_answered_and_makes_it_again() -> anyhow::Result<()>
{
    let test = "a_controller_gives_up_a_call_that_is_not_answered_and_makes_it_again";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let proxy = school.proxy().await?;
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    school.class("warm", &pool_of(3)).await?;
    school.class("cold", &pool_of(0)).await?;
    for (name, class) in [
        ("ada", "cold"),
        ("bob", "warm"),
        ("cyd", "warm"),
        ("dan", "warm"),
    ] {
        school.resting(name, class).await?;
    }
    school.pool(3).await?;
    school.wake("dan", 0).await?;
    school
        .status("dan", "awake", |status| status.is_ready(1))
        .await?;
    school.pool(3).await?;
    let dans = school.stand_in.assignments().remove(0);

    // Side by side: the pod that is made for ada, the word that names bob's, the end of dan's; then the label of cyd's.
    let mut made = proxy.stop(|asked| asked.is(&Method::POST, "/pods"));
    let mut named = proxy.stop(|asked| asked.is(&Method::PUT, "/bob/status"));
    let mut ended = proxy.stop(|asked| asked.method == Method::DELETE);
    let mut labelled =
        proxy.stop(|asked: &Asked| asked.method == Method::PATCH && asked.path.contains("/pods/"));
    let mark = school.plane.mark().await?;
    for name in ["ada", "bob", "cyd"] {
        school.wake(name, 0).await?;
    }
    let slept = json!({"ending": "slept", "committed": true});
    school.stand_in.end(&dans.pod, &End::with(&slept)).await?;
    let held = [
        made.next().await,
        named.next().await,
        ended.next().await,
        labelled.next().await,
    ];
    drop((made, named, ended, labelled));
    let mut pods = BTreeSet::new();
    for name in ["ada", "bob", "cyd"] {
        let up = school.status(name, "awake", |status| status.is_ready(1));
        pods.insert(up.await?.pod().to_owned());
    }
    let slept = school.status("dan", "asleep", |status| status.is_asleep(1));
    slept.await?;
    eventually("each has a pod, and the pool three", SOON, || async {
        let all = names(&school.pods("").await?);
        let is_well = all.len() == 6 && pods.iter().all(|pod| all.contains(pod));
        Ok(is_well.then_some(()))
    })
    .await?;
    let came = school.stand_in.assignments();
    let told: BTreeSet<_> = came.iter().map(|came| (&came.learner, &came.uid)).collect();
    assert_eq!((told.len(), pods.len()), (4, 3), "{came:?}");
    // What was given up never came to the API server. A label is for people, and is not written again.
    let writes = school.plane.writes_since(mark).await?;
    let mut ours = tally(&writes, CONTROLLER);
    ours.retain(|what, _| what.ends_with(" pods"));
    let once = [("create pods", 3), ("delete pods", 1), ("patch pods", 2)];
    let once = once.map(|(what, count)| (what.to_owned(), count));
    assert_eq!(ours, once.into(), "{}", controller.log()?);
    for held in held {
        held.goes(Fate::Lost);
    }
    controller.stop()
}
