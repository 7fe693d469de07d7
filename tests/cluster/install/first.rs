//! A first learner: answered from the agent's own container, put to sleep, woken with what they had.

use carrel_tests::agent;
use carrel_tests::cluster::{Installation, Steps};
use serde_json::json;

pub(super) async fn a_learner_is_answered_sleeps_and_remembers(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let idle = json!({"idle": {"minSeconds": 3, "maxSeconds": 3}});
    school.apply(&agent::inside("counting", &idle))?;
    school.learner("ada", "counting").await?;
    assert_eq!(school.api.reply("ada", "hello").await?, "1");
    steps.done("a first answer, by an agent in a container of its own image");
    school.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "learner/ada",
        "--timeout=10s",
    ])?;
    let pods = school.pods()?;
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(pods[0]["metadata"]["labels"]["carrel.dev/learner"], "ada");
    let status = school.object("learner/ada")?["status"].clone();
    assert_eq!(status["podUid"], pods[0]["metadata"]["uid"]);
    assert_eq!(status["nodeName"], json!(school.node.name));
    school.no_pods().await?;
    school.kubectl(&[
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Asleep",
        "learner/ada",
        "--timeout=10s",
    ])?;
    steps.done("asleep after the idle window, and the pod gone");
    assert_eq!(school.api.reply("ada", "again").await?, "2");
    let again = school.object("learner/ada")?["status"].clone();
    assert_ne!(again["podUid"], status["podUid"]);
    assert_eq!(again["epoch"], json!(2));
    steps.done("woken by a message, and remembers");
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
    let pool = json!({"warmPool": {"size": 1}});
    school.apply(&agent::inside("warm", &pool))?;
    let pod = school.blank("warm", 1).await?.remove(0);
    school.learner("carl", "warm").await?;
    assert_eq!(school.api.reply("carl", "hello").await?, "1");
    let status = school.object("learner/carl")?["status"].clone();
    assert_eq!(
        (&status["startKind"], &status["podUid"]),
        (&json!("warm"), &pod["metadata"]["uid"])
    );
    let none = json!({"warmPool": {"size": 0}});
    school.apply(&agent::inside("warm", &none))?;
    school.blank("warm", 0).await?;
    school.api.sleep("carl").await?;
    steps.done("a pod that waited in the pool becomes a learner's");
    Ok(())
}
