//! The way to a learner's agent.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::world::World;

#[tokio::test]
async fn a_request_wakes_the_agent_and_carries_nothing_of_ours() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let asked = ada
        .with("cookie", "carrel_session=secret; other=1")
        .with("x-carrel-request", "1")
        .with("x-own", "kept")
        .with("connection", "x-hop")
        .with("x-hop", "1");
    let answer = asked
        .raw(Method::POST, "/l/ada/a%20b/c?d=e&f", "the body")
        .await;
    let seen = answer.is(200).json();
    assert_eq!(seen["asked"]["method"], "POST");
    assert_eq!(seen["asked"]["uri"], "/agent/a%20b/c?d=e&f");
    assert_eq!(seen["body"], "the body");
    let names = seen["asked"]["headers"].to_string();
    assert!(names.contains("x-own"), "{names}");
    for ours in ["cookie", "x-carrel-request", "x-hop", "\"connection\""] {
        assert!(!names.contains(ours), "{ours} in {names}");
    }
    for refused in ["set-cookie", "service-worker-allowed", "clear-site-data"] {
        assert!(!answer.headers.contains_key(refused), "{refused}");
    }
    assert_eq!(
        answer.headers["content-security-policy"],
        "sandbox allow-scripts allow-forms"
    );
    assert_eq!(answer.headers["x-of-the-agent"], "kept");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_path_that_steps_out_reaches_no_agent() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    for path in [
        "/l/ada/../bob/x",
        "/l/ada/%2e%2e/v1/turns",
        "/l/ada/a/..%2f..%2fv1",
    ] {
        let answer = ada.get(path).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404),
            "{path}: {}",
            answer.text
        );
        answer.problem();
    }
    assert_eq!(
        world.fleet.made.load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    let folder = ada.get("/l/ada").await;
    assert_eq!(folder.is(308).headers["location"], "/l/ada/");
}

#[tokio::test]
async fn a_websocket_is_joined_and_one_from_another_site_is_refused() {
    let world = World::new().await;
    let made = json!({"id": "ada"});
    world
        .operator()
        .post("/admin/v1/learners", &made)
        .await
        .is(200);
    let tokens = world
        .operator()
        .post("/admin/v1/learners/ada/tokens", &json!({}))
        .await;
    let token = tokens.json()["token"].as_str().expect("a token").to_owned();
    let address = world.base.replace("http://", "ws://");
    let request = |origin: &str| {
        let mut request = format!("{address}/l/ada/socket")
            .into_client_request()
            .expect("a request");
        let headers = request.headers_mut();
        headers.insert(
            "authorization",
            format!("Bearer {token}").parse().expect("a value"),
        );
        headers.insert("origin", origin.parse().expect("a value"));
        request
    };
    let (mut socket, answer) = tokio_tungstenite::connect_async(request(&world.base))
        .await
        .expect("a WebSocket");
    assert_eq!(answer.status(), 101);
    for text in ["hello", "again"] {
        socket.send(Message::text(text)).await.expect("sent");
        let echoed = socket.next().await.expect("a message").expect("whole");
        assert_eq!(echoed.into_text().expect("text").as_str(), text);
    }
    let elsewhere = tokio_tungstenite::connect_async(request("https://elsewhere.example")).await;
    let refused = elsewhere.expect_err("refused").to_string();
    assert!(refused.contains("403"), "{refused}");
}

#[tokio::test]
async fn an_incarnation_that_ends_is_replaced_for_the_next_request() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    ada.get("/l/ada/").await.is(200);
    let pod = world.fleet.pod("ada");
    *pod.phase.lock().expect("whole") = carrel_protocol::sidecar::Phase::Ending;
    ada.get("/l/ada/").await.is(200);
    assert_eq!(world.fleet.pod("ada").epoch.0, 2);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_a_problem_not_a_hang() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    ada.get("/l/ada/").await.is(200);
    let mut asked = world.fleet.pod("ada").unanswered.subscribe();
    // On a connection of its own: every other client of these tests gives up by the same clock.
    let mut connection = ada.raw_get("/l/ada/silent").await;
    asked.wait_for(|asked| *asked == 1).await.expect("a pod");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(*asked.borrow(), 1, "it may think for minutes");
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("whole");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains(r#""code":"agent_unavailable""#), "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    asked.wait_for(|asked| *asked == 0).await.expect("a pod");
}
