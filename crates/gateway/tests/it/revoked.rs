//! What a token or a session opened ends with it.

use std::time::Duration;

use carrel_core::LearnerId;
use carrel_store::{Access as _, Learners as _};
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::client::{PATIENCE, text_of};
use crate::world::{World, accepted, now};

const EVENTS: &str = "/v1/learners/ada/events";

#[tokio::test]
async fn revoking_a_learners_tokens_ends_its_streams_and_nobody_elses() {
    let world = World::new().await;
    let (ada, bob) = (world.learner("ada").await, world.learner("bob").await);
    accepted(&ada, "ada", "k", "hello").await;
    let mut all = ada.events(EVENTS, None).await;
    let last = all.outcome().await.pop().expect("an outcome").id;
    let mut others = bob.events("/v1/learners/bob/events", None).await;
    let mut operators = world.operator().events(EVENTS, Some(&last)).await;
    let tokens = "/admin/v1/learners/ada/tokens";
    world.operator().delete(tokens).await.is(204);
    assert!(all.ends().await, "the stream goes on");
    ada.get(EVENTS).await.is(401).problem();
    accepted(&bob, "bob", "k", "hi").await;
    assert_eq!(text_of(&others.outcome().await), "You said: hi");
    accepted(&world.client_of("ada").await, "ada", "k2", "again").await;
    assert_eq!(text_of(&operators.outcome().await), "You said: again");
}

#[tokio::test]
async fn revoking_a_learners_tokens_ends_its_way_to_the_agent() {
    let world = World::new().await;
    world.learner("ada").await;
    let tokens = "/admin/v1/learners/ada/tokens";
    let token = world.operator().post(tokens, &json!({})).await;
    let token = token.json()["token"].as_str().expect("a token").to_owned();
    let ada = world.nobody().bearer(&token);
    let mut answer = ada
        .send(Method::GET, "/l/ada/forever", "".into())
        .await
        .into_body();
    let first = answer.frame().await.expect("a frame").expect("whole");
    assert_eq!(first.into_data().ok().as_deref(), Some(&b"first"[..]));
    let address = world.base.replace("http://", "ws://");
    let mut request = format!("{address}/l/ada/socket")
        .into_client_request()
        .expect("a request");
    let value = format!("Bearer {token}").parse().expect("a value");
    request.headers_mut().insert("authorization", value);
    let (mut socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .expect("a WebSocket");
    socket.send(Message::text("hello")).await.expect("sent");
    socket.next().await.expect("a message").expect("whole");

    world.operator().delete(tokens).await.is(204);
    let rest = timeout(PATIENCE, answer.frame()).await.expect("in time");
    assert!(
        matches!(rest, Some(Err(_))),
        "it must not look whole: {rest:?}"
    );
    let end = timeout(PATIENCE, socket.next()).await.expect("in time");
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
}

#[tokio::test]
async fn revoking_a_learners_tokens_cuts_what_it_still_sends_to_the_agent() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    ada.get("/l/ada/").await.is(200);
    let tokens = "/admin/v1/learners/ada/tokens";
    let token = world.operator().post(tokens, &json!({})).await;
    let token = token.json()["token"].as_str().expect("a token").to_owned();
    let address = world.base.trim_start_matches("http://");
    let mut upload = TcpStream::connect(address).await.expect("a connection");
    let begins = format!(
        "POST /l/ada/swallow HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    );
    upload.write_all(begins.as_bytes()).await.expect("sent");
    let pod = world.fleet.pod("ada");
    let mut swallowed = pod.swallowed.subscribe();
    let mut heard = async |pieces: usize| {
        let heard = swallowed.wait_for(|heard| heard.len() >= pieces);
        let heard = timeout(PATIENCE, heard).await.expect("in time");
        heard.expect("a pod").clone()
    };
    assert_eq!(heard(1).await, ["one"]);
    // The answer is whole; what is sent goes on.
    let mut answer = [0; 12];
    let read = timeout(PATIENCE, upload.read_exact(&mut answer)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(answer, *b"HTTP/1.1 200");
    upload.write_all(b"3\r\ntwo\r\n").await.expect("sent");
    assert_eq!(heard(2).await, ["one", "two"]);

    world.operator().delete(tokens).await.is(204);
    // Whether it can still be sent is no matter; it must not arrive.
    let _ = upload.write_all(b"5\r\nthree\r\n").await;
    assert_eq!(heard(3).await, ["one", "two", "(broken off)"]);
}

#[tokio::test]
async fn a_session_that_is_left_is_worthless_and_so_is_what_it_opened() {
    let world = World::new().await;
    world.learner("ada").await;
    let browser = async || {
        let cookie = world.cookie("ada", "http").await;
        let pair = cookie.split(';').next().unwrap_or_default();
        world.nobody().with("cookie", pair)
    };
    let (left, kept) = (browser().await, browser().await);
    let (mut ending, mut staying) = (
        left.events(EVENTS, None).await,
        kept.events(EVENTS, None).await,
    );
    let session = "/v1/session";
    left.delete(session).await.is(403).problem();
    let gone = left.with("x-carrel-request", "1").delete(session).await;
    let cleared = gone.is(204).headers["set-cookie"].to_str().expect("text");
    assert!(cleared.contains("Max-Age=0"), "{cleared}");
    assert!(ending.ends().await, "the stream goes on");
    left.get(session).await.is(401).problem();
    kept.get(session).await.is(200);
    accepted(&kept.with("x-carrel-request", "1"), "ada", "k", "here").await;
    assert_eq!(text_of(&staying.outcome().await), "You said: here");
}

#[tokio::test]
async fn what_another_process_revokes_or_erases_is_seen_within_a_heartbeat() {
    let world = World::new().await;
    let (ada, bob) = (world.learner("ada").await, world.learner("bob").await);
    let mut revoked = ada.events(EVENTS, None).await;
    let mut own = bob.events("/v1/learners/bob/events", None).await;
    let mut operators = world
        .operator()
        .events("/v1/learners/bob/events", None)
        .await;
    let elsewhere = world.elsewhere().await;
    let learner = |id: &str| id.parse::<LearnerId>().expect("a label");
    let done = elsewhere.revoke_all(&learner("ada")).await;
    done.expect("revoked");
    let closed = elsewhere.close_learner(&learner("bob"), now()).await;
    assert!(closed.expect("closed"));
    for events in [&mut revoked, &mut operators] {
        let unheard = timeout(Duration::ZERO, events.next()).await;
        assert!(unheard.is_err(), "nobody told this gateway: {unheard:?}");
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(15)).await;
    tokio::time::resume();
    for events in [&mut revoked, &mut own, &mut operators] {
        assert!(events.ends().await, "the stream goes on");
    }
}
