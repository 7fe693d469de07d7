//! A first learner: answered from the agent's own container, put to sleep, woken with what they had.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::agent;
use carrel_tests::cluster::{Installation, Mark, Operator, Steps};
use carrel_tests::eventually;
use reqwest::Method;
use serde_json::json;

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(1);
/// What comes of a turn has come when the controller has renewed its lease so often since.
const RENEWALS: usize = 2;

fn counts(writes: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let writes = writes.iter();
    writes
        .map(|(what, count)| ((*what).to_owned(), *count))
        .collect()
}

/// As an operator waits for it.
fn is_ready(school: &Installation, learner: &str) -> anyhow::Result<()> {
    let learner = format!("learner/{learner}");
    school.kubectl(&["wait", "--for=condition=Ready", &learner, "--timeout=10s"])?;
    Ok(())
}

/// Since a mark as much was written as one wake costs, a pod that is made included. Whoever waits for three seconds is told why, by one write more.
async fn costs_a_wake(school: &Installation, since: Mark) -> anyhow::Result<()> {
    let (mut wake, _) = school.written(since).await?;
    let told = wake.remove("update learners/status");
    ensure!(matches!(told, Some(2 | 3)), "{told:?} {wake:?}");
    let others = ["create pods", "patch learners", "patch pods"].map(|what| (what, 1));
    assert_eq!(wake, counts(&others));
    Ok(())
}

pub(super) async fn a_learner_is_answered_sleeps_and_remembers(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let idle = json!({"idle": {"minSeconds": 10, "maxSeconds": 10}});
    school.apply(&agent::inside("counting", &idle))?;
    school.learner("ida", "counting").await?;
    assert_eq!(school.api.reply("ida", "hello").await?, "1");
    steps.done("a first answer, by an agent in a container of its own image");
    is_ready(school, "ida")?;
    let mark = school.plane.mark().await?;
    let pods = school.pods()?;
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(pods[0]["metadata"]["labels"]["carrel.dev/learner"], "ida");
    assert_eq!(pods[0]["spec"]["priority"], 1000);
    let status = school.object("learner/ida")?["status"].clone();
    assert_eq!(status["podUid"], pods[0]["metadata"]["uid"]);
    assert_eq!(status["nodeName"], json!(school.node.name));
    school.no_pods().await?;
    school.kubectl(&[
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Asleep",
        "learner/ida",
        "--timeout=10s",
    ])?;
    let (sleep, _) = school.written(mark).await?;
    assert_eq!(
        sleep,
        counts(&[("delete pods", 1), ("update learners/status", 1)])
    );
    steps.done("asleep after the idle window, by two writes, and the pod gone");
    let mark = school.plane.mark().await?;
    assert_eq!(school.api.reply("ida", "again").await?, "2");
    is_ready(school, "ida")?;
    costs_a_wake(school, mark).await?;
    let again = school.object("learner/ida")?["status"].clone();
    assert_ne!(again["podUid"], status["podUid"]);
    assert_eq!(again["epoch"], json!(2));
    steps.done("woken by a message, by five writes, and remembers");
    Ok(())
}

pub(super) async fn helm_test_sees_an_answer_before_anybody_makes_a_class(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let said = school.helm(&["test", "carrel", "--logs"]).await?;
    assert_eq!(
        said.matches("Phase:          Succeeded").count(),
        2,
        "{said}"
    );
    assert!(said.contains("56"), "{said}");
    school.no_pods().await?;
    steps.done("helm test: a learner of the built-in class is made, answers, and is erased");
    Ok(())
}

pub(super) async fn a_pod_of_the_pool_becomes_a_learners(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    // What is counted is of one learner alone.
    school.api.sleep("ida").await?;
    school.no_pods().await?;
    let pool = json!({"warmPool": {"size": 1}});
    school.apply(&agent::inside("warm", &pool))?;
    let pod = school.blank("warm", 1).await?.remove(0);
    school.learner("carl", "warm").await?;
    let visited = ["wait", "--for=condition=Ready=false", "learner/carl"];
    school.kubectl(&[&visited[..], &["--timeout=10s"]].concat())?;
    let mark = school.plane.mark().await?;
    assert_eq!(school.api.reply("carl", "hello").await?, "1");
    is_ready(school, "carl")?;
    school.blank("warm", 1).await?;
    // The pod that was made takes the other's place in the pool: it is no part of the wake.
    costs_a_wake(school, mark).await?;
    let mark = school.plane.mark().await?;
    assert_eq!(school.api.reply("carl", "and again").await?, "2");
    eventually("time passes", LONG, || async {
        let (turn, renewals) = school.written(mark).await?;
        ensure!(turn.is_empty(), "a turn writes {turn:?}");
        Ok((renewals >= RENEWALS).then_some(()))
    })
    .await?;
    let status = school.object("learner/carl")?["status"].clone();
    assert_eq!(
        (&status["startKind"], &status["podUid"]),
        (&json!("warm"), &pod["metadata"]["uid"])
    );
    let none = json!({"warmPool": {"size": 0}});
    school.apply(&agent::inside("warm", &none))?;
    school.blank("warm", 0).await?;
    school.api.sleep("carl").await?;
    steps.done(
        "a pod that waited in the pool becomes a learner's by four writes, and a turn is none",
    );
    Ok(())
}

pub(super) async fn an_older_state_is_what_the_next_message_finds(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    school.learner("olga", "counting").await?;
    for count in ["1", "2", "3"] {
        assert_eq!(school.api.reply("olga", "hello").await?, count);
    }
    let list = school
        .api
        .admin(Method::GET, "learners/olga/snapshots", None)
        .await?;
    // The newest comes first; each turn has left one.
    let names = list["snapshots"].as_array().context("it is a list")?;
    let names = names.iter().filter_map(|one| one["snapshot_id"].as_str());
    let names: Vec<&str> = names.collect();
    let [newest, .., oldest] = names[..] else {
        anyhow::bail!("three turns leave three snapshots: {list}");
    };
    let wish = json!({"spec": {"restore": {"snapshotId": oldest}}}).to_string();
    school.kubectl(&["patch", "learner/olga", "--type=merge", "--patch", &wish])?;
    // Taken when she has slept; a message that comes before then waits for it.
    let noted = format!("--for=jsonpath={{.status.restore.snapshotId}}={oldest}");
    school.kubectl(&["wait", &noted, "learner/olga", "--timeout=60s"])?;
    let restored = school.object("learner/olga")?["status"]["restore"].take();
    assert_eq!(restored["message"].as_str().unwrap_or_default(), "");
    assert_eq!(school.api.reply("olga", "once more").await?, "2");
    steps.done("a snapshot that a document names, restored: the next message finds it");
    let operator = Operator::of(&school.plane)?;
    let words = ["snapshot", "restore", "olga", newest, "--yes", "-n"];
    let words = [&words[..], &[Installation::NAMESPACE]].concat();
    operator.carrel(&words, "")?.well()?;
    assert_eq!(school.api.reply("olga", "and again").await?, "4");
    steps.done("and one that 'carrel snapshot restore' names");
    Ok(())
}
