//! Fleets whose documents are no rows: who has none is no learner for anybody, and what is waiting for them waits.

use http::Method;
use serde_json::json;

use crate::world::{World, accepted, post};

#[tokio::test]
async fn who_has_no_document_is_no_learner_and_their_messages_wait_until_it_is_back() {
    let world = World::new().await;
    let (operator, ada) = (world.operator(), world.learner("ada").await);
    world.learner("bob").await;
    *world.fleet.lazy.lock().expect("whole") = true;
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    accepted(&ada, "ada", "k", "hello").await;
    events.until(|event| event.data["state"] == "waking").await;

    world.fleet.loses_document("ada");
    let refused = post(&ada, "ada", "another", "hello?").await;
    assert_eq!(refused.is(404).problem(), "not_found");
    operator.get("/admin/v1/learners/ada").await.is(404);
    let list = operator.get("/admin/v1/learners").await.is(200).json();
    let listed: Vec<_> = list["learners"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|learner| learner["id"].clone())
        .collect();
    assert_eq!(listed, [json!("bob")]);

    *world.fleet.lazy.lock().expect("whole") = false;
    let again = json!({"id": "ada"});
    operator.post("/admin/v1/learners", &again).await.is(200);
    let seen = events.outcome().await;
    assert_eq!(seen[seen.len() - 1].name, "done");
    assert_eq!(
        seen[seen.len() - 1].data["reply"]["text"],
        "You said: hello"
    );
}

#[tokio::test]
async fn a_class_that_another_has_in_hand_is_a_conflict_and_stays() {
    let world = World::new().await;
    let operator = world.operator();
    world.learner("ada").await;
    let path = "/admin/v1/classes/managed";
    let put = operator.call(Method::PUT, path, &json!({})).await;
    put.is(200);
    let patch = json!({"class": "managed"});
    let path = "/admin/v1/learners/ada";
    let refused = operator.call(Method::PATCH, path, &patch).await;
    assert_eq!(refused.is(409).problem(), "conflict");
    assert_eq!(operator.get(path).await.is(200).json()["class"], "default");
}
