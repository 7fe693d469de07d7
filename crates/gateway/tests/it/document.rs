//! `GET /openapi.json` against the server that it describes.

use http::Method;
use serde_json::{Value, json};

use crate::world::{World, streamed};

/// What no client but a browser asks for: parts of our pages, and an agent's folder of pages.
const OF_PAGES: [&str; 3] = ["/assets/{path}", "/l/{id}", "/l/{id}/"];
/// The health paths, which are another crate's.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

#[tokio::test]
async fn the_document_names_what_is_there_and_nothing_else() {
    let world = World::new().await;
    let nobody = world.nobody();
    let document = nobody.get("/openapi.json").await.is(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let described = document["paths"].as_object().expect("paths");
    let served = carrel_gateway::paths();
    let all = served.iter().map(String::as_str).chain(HEALTH);
    let mut named = 0;
    for path in all.filter(|path| !OF_PAGES.contains(path)) {
        let operations = described.get(path);
        for method in ["get", "post", "put", "patch", "delete"] {
            let verb: Method = method.to_uppercase().parse().expect("a method");
            let answer = nobody.raw(verb, &example_of(path), "").await;
            let is_there = answer.status != 405;
            let operation = operations.and_then(|operations| operations.get(method));
            assert_eq!(operation.is_some(), is_there, "{method} {path}");
            assert!(operation.is_none_or(|operation| operation["responses"].is_object()));
            assert!(!answer.text.contains("there is no such path"), "{path}");
        }
        named += 1;
    }
    assert_eq!(named, described.len(), "paths that are not there");
}

/// A path whose parameters have values.
fn example_of(path: &str) -> String {
    path.replace("{id}", "ada")
        .replace("{name}", "quick")
        .replace("{path}", "x")
        .replace("{turn_id}", "0195e9a0-0000-7000-8000-000000000000")
        .replace("{snapshot_id}", &"0".repeat(64))
        .replace("{n}", "0")
}

/// The properties of an object and of a described shape are the same.
fn assert_described(document: &Value, shape: &str, value: &Value) {
    let schema = &document["components"]["schemas"][shape];
    let properties = schema["properties"].as_object().expect(shape);
    let value = value.as_object().expect(shape);
    for name in value.keys() {
        assert!(
            properties.contains_key(name),
            "{shape}.{name} is not described"
        );
    }
    for name in schema["required"].as_array().expect(shape) {
        let name = name.as_str().expect("a name");
        assert!(
            value.contains_key(name),
            "{shape}.{name} is described and not there"
        );
    }
}

#[tokio::test]
async fn the_document_describes_what_is_answered() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let operator = world.operator();
    let document = world.nobody().get("/openapi.json").await.json();
    let act = crate::pod::Act::UseTool("", "noted");
    world.fleet.script("ada", [act]);
    let accepted = crate::world::post(&ada, "ada", "k", "hello")
        .await
        .is(202)
        .json();
    let mut events = streamed(&ada, "ada", "k", "hello").await;
    events.until(|event| event.name == "tool").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    events.outcome().await;
    let turn = accepted["turn_id"].as_str().expect("a turn");
    let turn = ada
        .get(&format!("/v1/learners/ada/turns/{turn}"))
        .await
        .is(200)
        .json();
    let history = ada.get("/v1/learners/ada/messages").await.is(200).json();
    world.fleet.script("ada", [crate::pod::Act::Fail("half")]);
    streamed(&ada, "ada", "k2", "fail").await.outcome().await;
    let failed = operator.get("/admin/v1/learners/ada").await.is(200).json();
    let list = operator.get("/admin/v1/learners").await.is(200).json();
    let none = json!({});
    let restic = operator.post("/admin/v1/learners/ada/restic", &none).await;
    let rewrapped = operator.post("/admin/v1/vault/rewrap", &none).await;
    let snapshots = operator
        .get("/admin/v1/learners/ada/snapshots")
        .await
        .is(200)
        .json();
    for (shape, value) in [
        ("MessageAccepted", &accepted),
        ("Turn", &turn),
        ("Message", &turn["message"]),
        ("Reply", &turn["reply"]),
        ("ToolUse", &turn["tools"][0]),
        ("Usage", &turn["usage"]),
        ("TimingMs", &turn["timing_ms"]),
        ("History", &history),
        ("HistoryEntry", &history["messages"][0]),
        ("LearnerList", &list),
        ("Learner", &list["learners"][0]),
        ("LastFailure", &failed["last_failure"]),
        ("Condition", &list["learners"][0]["conditions"][0]),
        ("SnapshotSummary", &snapshots["snapshots"][0]),
        ("ResticEnvironment", &restic.is(200).json()),
        ("Rewrapped", &rewrapped.is(200).json()),
        ("Problem", &world.nobody().get("/none").await.json()),
        ("UsageReport", &operator.get("/admin/v1/usage").await.json()),
        ("EventPage", &operator.get("/admin/v1/events").await.json()),
        ("ClassList", &operator.get("/admin/v1/classes").await.json()),
    ] {
        assert_described(&document, shape, value);
    }
}
