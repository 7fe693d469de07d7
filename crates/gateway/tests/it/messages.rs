//! Messages: accepted once, or refused with a reason and nothing stored.

use carrel_gateway::Limits;
use http::Method;
use serde_json::json;

use crate::client::{assert_rising, text_of};
use crate::pod::Act;
use crate::world::{World, accepted, post, streamed, turn_of};

const PATH: &str = "/v1/learners/ada/messages";

#[tokio::test]
async fn a_message_wakes_its_learner_and_its_turn_is_done_after_the_commit() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world
        .fleet
        .script("ada", [Act::Say(vec!["two plus two ", "is four"])]);
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    let turn = accepted(&ada, "ada", "k1", "what is 2 + 2?").await;
    let seen = events.outcome().await;
    assert_rising(&seen);
    assert_eq!(text_of(&seen), "two plus two is four");
    let last = &seen[seen.len() - 1];
    assert_eq!(last.name, "done");
    assert_eq!(last.data["reply"]["text"], "two plus two is four");
    assert_eq!(last.data.get("stopped"), None);
    let document = turn_of(&ada, "ada", &turn).await;
    assert_eq!(document["state"], "done");
    assert_eq!(document["attempts"], 1);
    assert_eq!(document["start_kind"], "cold");
    assert_eq!(document["timing_ms"]["agent"], 11);
    assert_eq!(document["timing_ms"]["restore"], 7, "as its pod says");
    assert_eq!(document["snapshot_id"], last.data["snapshot_id"]);
    let states: Vec<_> = seen
        .iter()
        .filter(|event| event.name == "state")
        .filter_map(|event| event.data["state"].as_str())
        .collect();
    assert_eq!(states[0], "queued");
    assert!(
        states.contains(&"waking") && states.contains(&"running"),
        "{states:?}"
    );
}

#[tokio::test]
async fn the_same_key_sent_fifty_times_at_once_is_one_message_with_one_answer() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let many = (0..50).map(|_| post(&ada, "ada", "same", "hello"));
    let answers = futures::future::join_all(many).await;
    let first = answers[0].is(202).json();
    for answer in &answers {
        assert_eq!(answer.is(202).json(), first);
    }
    let history = ada.get(PATH).await.is(200).json();
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1));
    post(&ada, "ada", "same", "another body")
        .await
        .is(422)
        .problem();
    let mut events = streamed(&ada, "ada", "same", "hello").await;
    let seen = events.outcome().await;
    assert_eq!(text_of(&seen), "You said: hello");
    assert!(
        events.next().await.is_none(),
        "the turn's stream ends with it"
    );
}

#[tokio::test]
async fn a_repeat_as_stream_tells_an_ended_turn_from_its_beginning() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    for key in ["a", "b", "c"] {
        streamed(&ada, "ada", key, key).await.outcome().await;
    }
    let seen = streamed(&ada, "ada", "b", "b").await.outcome().await;
    let names: Vec<_> = seen.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["state", "state", "delta", "done"]);
    assert_eq!(text_of(&seen), "You said: b");
    assert_rising(&seen);
}

#[tokio::test]
async fn what_is_malformed_is_a_problem_and_stores_nothing() {
    let world = World::with(Limits {
        message_bytes: 1000,
        attachment_bytes: 1000,
        messages_per_minute: 100,
    })
    .await;
    let ada = world
        .learner("ada")
        .await
        .with("content-type", "application/json");
    let keyed = ada.with("idempotency-key", "k");
    let file = |name: &str, data: &str| {
        json!({"text": "x", "attachments": [{"name": name, "media_type": "text/plain", "data": data}]})
            .to_string()
    };
    let big = json!({"text": "x".repeat(1001)}).to_string();
    let huge = json!({"text": "x".repeat(200_000)}).to_string();
    let cases = [
        (400, "invalid_body", "{".to_owned()),
        (400, "invalid_body", String::new()),
        (400, "invalid_body", "[]".to_owned()),
        (400, "invalid_body", r#"{"text": 5}"#.to_owned()),
        (
            400,
            "invalid_body",
            r#"{"text": "x", "admin": true}"#.to_owned(),
        ),
        (400, "invalid_body", r#"{"text": " \n"}"#.to_owned()),
        (400, "invalid_body", r#"{"text": "a\u0000b"}"#.to_owned()),
        (400, "invalid_body", "\u{0}\u{1}\u{2}".to_owned()),
        (400, "invalid_body", "[".repeat(5000)),
        (400, "invalid_body", file("../../etc/passwd", "aGk=")),
        (400, "invalid_body", file("x", "not base64")),
        (413, "body_too_large", big),
        (413, "body_too_large", huge),
        (413, "body_too_large", file("x", &"AAAA".repeat(400))),
    ];
    for (status, code, body) in cases {
        let answer = keyed.raw(Method::POST, PATH, body.clone()).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, code),
            "{shown}"
        );
    }
    let good = json!({"text": "x"}).to_string();
    let answer = ada.raw(Method::POST, PATH, good.clone()).await;
    assert_eq!(answer.is(400).problem(), "invalid_request");
    let no_type = world.client_of("ada").await.with("idempotency-key", "k");
    assert_eq!(
        no_type
            .raw(Method::POST, PATH, good)
            .await
            .is(400)
            .problem(),
        "invalid_body"
    );
    let long_key = ada.with("idempotency-key", &"k".repeat(256));
    assert_eq!(
        long_key
            .raw(Method::POST, PATH, r#"{"text":"x"}"#)
            .await
            .is(400)
            .problem(),
        "invalid_request"
    );
    assert_eq!(
        keyed.raw(Method::PUT, PATH, "x").await.is(405).problem(),
        "method_not_allowed"
    );
    let history = keyed.get(PATH).await.is(200).json();
    assert_eq!(history["messages"], json!([]));
}

#[tokio::test]
async fn a_full_queue_refuses_new_messages_and_still_answers_repeats() {
    let world = World::new().await;
    let spec = json!({"turn": {"maxQueued": 2}});
    world
        .operator()
        .call(Method::PUT, "/admin/v1/classes/small", &spec)
        .await
        .is(200);
    let made = json!({"id": "ada", "class": "small"});
    world
        .operator()
        .post("/admin/v1/learners", &made)
        .await
        .is(200);
    let ada = world.client_of("ada").await;
    *world.fleet.lazy.lock().expect("whole") = true;
    let first = post(&ada, "ada", "1", "one").await.is(202).json();
    accepted(&ada, "ada", "2", "two").await;
    let full = post(&ada, "ada", "3", "three").await;
    assert_eq!(full.is(429).problem(), "queue_full");
    assert!(full.headers.contains_key("retry-after"));
    assert_eq!(post(&ada, "ada", "1", "one").await.is(202).json(), first);
}

#[tokio::test]
async fn the_rate_limit_counts_newly_accepted_messages_only() {
    let world = World::with(Limits {
        messages_per_minute: 2,
        ..Limits::default()
    })
    .await;
    let (ada, bob) = (world.learner("ada").await, world.learner("bob").await);
    let first = post(&ada, "ada", "1", "one").await.is(202).json();
    for _ in 0..5 {
        assert_eq!(post(&ada, "ada", "1", "one").await.is(202).json(), first);
    }
    accepted(&ada, "ada", "2", "two").await;
    let limited = post(&ada, "ada", "3", "three").await;
    assert_eq!(limited.is(429).problem(), "rate_limited");
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(post(&ada, "ada", "1", "one").await.is(202).json(), first);
    assert_eq!(
        post(&ada, "ada", "1", "other").await.is(422).problem(),
        "idempotency_key_reused"
    );
    accepted(&bob, "bob", "1", "mine").await;
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    world.learner("ada").await;
    let address = world
        .base
        .strip_prefix("http://")
        .expect("an address")
        .to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address)
        .await
        .expect("a connection");
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(1_000_000)
    );
    // The server may end before all of it is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}
