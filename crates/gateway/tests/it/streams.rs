//! Streams: every event once, in order, whoever leaves and comes back.

use crate::client::{Client, Event, assert_rising, text_of};
use crate::pod::Act;
use crate::world::{World, accepted, streamed};

const EVENTS: &str = "/v1/learners/ada/events";

fn texts(events: &[Event]) -> Vec<String> {
    let deltas = events.iter().filter(|event| event.name == "delta");
    deltas
        .map(|event| event.data["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Reads a stream one event a connection until the outcome.
async fn one_by_one(client: &Client, first: Option<&str>) -> Vec<Event> {
    let mut last = first.map(str::to_owned);
    let mut seen = Vec::new();
    loop {
        let mut events = client.events(EVENTS, last.as_deref()).await;
        let event = events.next().await.expect("an event");
        last = Some(event.id.clone());
        seen.push(event);
        if seen[seen.len() - 1].name == "done" {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_every_event_sees_what_one_that_stays_sees() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    let mut staying = ada.events(EVENTS, None).await;
    accepted(&ada, "ada", "k", "count").await;
    let mut seen = staying.until(|event| event.name == "delta").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    let leaving = one_by_one(&ada, None).await;
    seen.extend(staying.outcome().await);
    assert_eq!(leaving, seen);
    assert_rising(&seen);
    assert_eq!(texts(&seen), ["one ", "two"]);
}

#[tokio::test]
async fn a_client_that_comes_in_the_middle_gets_the_text_so_far_and_the_rest() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    accepted(&ada, "ada", "k", "count").await;
    let mut early = ada.events(EVENTS, None).await;
    early.until(|event| event.name == "delta").await;
    let mut late = ada.events(EVENTS, None).await;
    world.fleet.pod("ada").go_on.send_replace(true);
    let seen = late.outcome().await;
    assert_eq!(text_of(&seen), "one two");
    assert_rising(&seen);
}

#[tokio::test]
async fn a_client_that_returns_after_the_outcome_and_a_restart_gets_the_rest_once() {
    let mut world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    let mut events = ada.events(EVENTS, None).await;
    accepted(&ada, "ada", "k", "count").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    drop(events);
    world.fleet.pod("ada").go_on.send_replace(true);
    streamed(&ada, "ada", "k", "count").await.outcome().await;
    world.restart().await;
    let ada = world.client_of("ada").await;
    let last = seen[seen.len() - 1].id.clone();
    let rest = ada.events(EVENTS, Some(&last)).await.outcome().await;
    let names: Vec<_> = rest.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["restart", "delta", "done"]);
    seen.extend(rest);
    assert_rising(&seen);
    assert_eq!(text_of(&seen), "one two");
    let last = seen[seen.len() - 2].id.clone();
    let again = ada.events(EVENTS, Some(&last)).await.outcome().await;
    assert_eq!(again.len(), 1, "{again:?}");
}

#[tokio::test]
async fn a_gateway_that_is_started_again_attaches_to_the_running_turn() {
    let mut world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::Hold("one ", "two")]);
    let mut events = ada.events(EVENTS, None).await;
    let turn = accepted(&ada, "ada", "k", "count").await;
    let mut seen = events.until(|event| event.name == "delta").await;
    world.restart().await;
    let ada = world.client_of("ada").await;
    let last = seen[seen.len() - 1].id.clone();
    let mut events = ada.events(EVENTS, Some(&last)).await;
    seen.extend(events.until(|event| event.name == "delta").await);
    world.fleet.pod("ada").go_on.send_replace(true);
    seen.extend(events.outcome().await);
    assert_rising(&seen);
    assert_eq!(text_of(&seen), "one two");
    let document = crate::world::turn_of(&ada, "ada", &turn).await;
    assert_eq!(
        (&document["state"], &document["attempts"]),
        (&"done".into(), &1.into())
    );
    assert_eq!(
        world.fleet.pod("ada").orders.lock().expect("whole").len(),
        1
    );
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_and_one_of_another_life_begins_at_the_beginning() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    streamed(&ada, "ada", "k", "hello").await.outcome().await;
    let bad = ada.with("last-event-id", "now").get(EVENTS).await;
    assert_eq!(bad.is(400).problem(), "invalid_request");
    let seen = ada.events(EVENTS, Some("9999.3")).await.outcome().await;
    assert_eq!(text_of(&seen), "You said: hello");
}

#[tokio::test]
async fn tool_uses_are_durable_events_between_the_text() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::UseTool("", "noted")]);
    let mut events = streamed(&ada, "ada", "k", "note this").await;
    let mut live = events.until(|event| event.data["status"] == "done").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    live.extend(events.outcome().await);
    let tools = |events: &[Event]| -> Vec<(String, String)> {
        let tools = events.iter().filter(|event| event.name == "tool");
        tools
            .map(|tool| (tool.id.clone(), tool.data["status"].to_string()))
            .collect()
    };
    assert_eq!(tools(&live).len(), 2, "{live:?}");
    let replayed = streamed(&ada, "ada", "k", "note this")
        .await
        .outcome()
        .await;
    assert_eq!(tools(&replayed), tools(&live));
    assert_eq!(text_of(&replayed), "noted");
}

#[tokio::test]
async fn a_client_that_comes_after_a_tool_use_gets_the_text_before_it_too() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::UseTool("one ", "two")]);
    let mut early = streamed(&ada, "ada", "k", "note this").await;
    early.until(|event| event.data["status"] == "done").await;
    let mut late = ada.events(EVENTS, None).await;
    let mut seen = late.until(|event| event.data["status"] == "done").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    seen.extend(late.outcome().await);
    assert_eq!(text_of(&seen), "one two");
    assert_rising(&seen);
}

#[tokio::test]
async fn turns_and_history_tell_the_tools_that_each_turn_used() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    streamed(&ada, "ada", "k1", "hello").await.outcome().await;
    world.fleet.script("ada", [Act::UseTool("", "noted")]);
    let mut events = streamed(&ada, "ada", "k2", "note this").await;
    events.until(|event| event.data["status"] == "done").await;
    world.fleet.pod("ada").go_on.send_replace(true);
    events.outcome().await;
    let history = ada.get("/v1/learners/ada/messages").await.is(200).json();
    let used = serde_json::json!([
        {"tool_id": "t1", "name": "notes", "status": "done", "summary": "notes done"}
    ]);
    let tools = |place: usize| &history["messages"][place]["turn"]["tools"];
    assert_eq!((tools(0), tools(1)), (&serde_json::json!([]), &used));
    let page = ada.get("/v1/learners/ada/messages?limit=1").await;
    assert_eq!(page.is(200).json()["messages"][0]["turn"]["tools"], used);
    let id = history["messages"][1]["turn_id"].as_str().expect("a turn");
    let turn = crate::world::turn_of(&ada, "ada", id).await;
    assert_eq!(turn["tools"], used);
}

#[tokio::test]
async fn a_long_answer_is_whole_for_a_client_that_lost_its_place() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let piece: &'static str = "a piece of a long answer ".repeat(1000).leak();
    world.fleet.script("ada", [Act::Hold(piece, "the end")]);
    let mut early = ada.events(EVENTS, None).await;
    accepted(&ada, "ada", "k", "tell").await;
    let mut seen = early.until(|event| event.name == "delta").await;
    drop(early);
    let pod = world.fleet.pod("ada");
    for _ in 0..40 {
        pod.say(piece);
    }
    let mut late = ada.events(EVENTS, Some(&seen[seen.len() - 1].id)).await;
    seen.extend(late.until(|event| event.name == "delta").await);
    pod.go_on.send_replace(true);
    seen.extend(late.outcome().await);
    assert_rising(&seen);
    let whole = format!("{}the end", piece.repeat(41));
    assert!(text_of(&seen) == whole, "the text is not whole");
    assert_eq!(
        seen[seen.len() - 1].data["reply"]["text"]
            .as_str()
            .map(str::len),
        Some(whole.len())
    );
}
