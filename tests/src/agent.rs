//! Agents that count: each turn adds one to a file in the workspace and answers with the number. They need nothing but
//! `/bin/sh` and `/usr/bin/perl` of the host, and do what a message tells them besides.

use serde_json::{Value, json};

use crate::cluster::Node;

/// The key with which the agents' WebSockets can be opened (RFC 6455, section 1.3).
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const HTTP: &str = include_str!("agent/counting.pl");
const COMMAND: &str = include_str!("agent/counting.sh");

/// A class whose agent counts behind the adapter `Http`; `more` is laid over its spec, one level deep.
///
/// What a message tells it, after it has counted: `slow N` answers in N pieces, 20 ms apart · `die` ends by SIGKILL ·
/// `exit` ends with status 1 · `hang` says nothing any more · `write N` writes N MiB · `files N` makes N files ·
/// `keep N` keeps N KiB that nobody knows and adds `kept` and the sum of their bytes · `kept` adds the same of what is there ·
/// `file NAME TEXT` writes a file and adds it to the reply · `link TARGET` adds a link to TARGET as if it were one ·
/// `name PATH` adds whatever is there · `context` answers with the context that it was given ·
/// `pay …` asks the model once, with the message, and adds the status of its answer.
///
/// What a browser asks of it, it answers with what was asked; a WebSocket with [`WEBSOCKET_KEY`] gives every message back.
pub fn http(name: &str, more: &Value) -> Value {
    class(
        name,
        &json!({"adapter": "Http", "command": ["/usr/bin/perl", "-e", HTTP]}),
        more,
    )
}

/// A class whose agent counts behind the adapter `Command`; it only counts.
pub fn command(name: &str, more: &Value) -> Value {
    class(
        name,
        &json!({"adapter": "Command", "command": ["/bin/sh", "-c", COMMAND]}),
        more,
    )
}

/// A class whose agent counts in a container of its own image on a real node ([`Node::INSIDE`](crate::cluster::Node::INSIDE)), and does
/// what the lines of a message say, as its source has it.
pub fn inside(name: &str, more: &Value) -> Value {
    let agent =
        json!({"adapter": "Command", "image": Node::INSIDE, "command": ["/inside", "turn"]});
    let little = json!({
        "agent": agent,
        "resources": {"cpu": "200m", "memory": "64Mi", "ephemeralStorage": "64Mi"},
        "snapshot": {"maxBytes": "64Mi"},
    });
    document("LearnerClass", name, &with(little, more))
}

fn class(name: &str, agent: &Value, more: &Value) -> Value {
    let spec = with(json!({"agent": agent, "resources": {"cpu": "2"}}), more);
    document("LearnerClass", name, &spec)
}

fn with(mut spec: Value, more: &Value) -> Value {
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// A learner of a class.
pub fn learner(name: &str, class: &str) -> Value {
    document("Learner", name, &json!({"className": class}))
}

fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}
