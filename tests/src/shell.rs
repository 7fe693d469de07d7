//! Agents that are a shell: a message is the script that its turn runs.

use serde_json::{Value, json};

use crate::{Setup, Up, agent};

/// A class whose agent is `/bin/sh` on what the learner writes; `more` is laid over its spec, one level deep.
pub fn class(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "agent": {"adapter": "Command", "command": ["/bin/sh"]},
        "resources": {"cpu": "1", "memory": "128Mi", "ephemeralStorage": "64Mi", "pids": 64},
        "snapshot": {"maxBytes": "64Mi"},
        "turn": {"timeoutSeconds": 60},
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

/// A server with the class `shell` and these learners of it.
///
/// # Errors
/// As [`Up::start`].
pub async fn up(test: &str, learners: &[&str]) -> anyhow::Result<Option<Up>> {
    let mut documents = vec![class("shell", &json!({}))];
    documents.extend(learners.iter().map(|name| agent::learner(name, "shell")));
    Up::start(
        test,
        Setup {
            documents,
            ..Setup::default()
        },
    )
    .await
}

/// A shell's word that is exactly this text.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
