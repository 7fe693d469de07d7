//! A first learner: answered from the agent's own container, put to sleep, woken with what they had.

use carrel_tests::cluster::{Installation, Node, Steps};
use serde_json::{Value, json};

/// A class whose agent counts in an image of its own; `more` is laid over its spec.
pub(super) fn class(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "agent": {"adapter": "Command", "image": Node::INSIDE, "command": ["/inside", "turn"]},
        "resources": {"cpu": "200m", "memory": "64Mi", "ephemeralStorage": "64Mi"},
        "snapshot": {"maxBytes": "64Mi"},
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "LearnerClass",
        "metadata": {"name": name},
        "spec": spec,
    })
}

pub(super) async fn a_learner_is_answered_sleeps_and_remembers(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let idle = json!({"idle": {"minSeconds": 3, "maxSeconds": 3}});
    school.apply(&class("counting", &idle))?;
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
