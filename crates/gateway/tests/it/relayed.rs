//! What one gateway gives another: a learner's stream, to the bearer of a gateway's token for that learner alone.

use std::time::Duration;

use carrel_core::{Epoch, OwnerId};
use carrel_protocol::token::{Caller, Signer};
use carrel_store::processes::{Process, Role};
use carrel_store::suite::fixture::message;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::pod::Act;
use crate::world::{World, now, streamed};

/// Who runs a turn is asked every second or so.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(30);

fn path(learner: &str, after: &str, fresh: bool) -> String {
    format!("/internal/v1/learners/{learner}/stream?after={after}&fresh={fresh}")
}

#[tokio::test]
async fn a_stream_is_given_to_no_one_but_another_gateway() {
    let world = World::new().await;
    let (ada, bob) = (
        "ada".parse().expect("a label"),
        "bob".parse().expect("a label"),
    );
    let learner = world.learner("ada").await;
    streamed(&learner, "ada", "k", "hello")
        .await
        .outcome()
        .await;
    let stranger = Signer::from_pem(&Signer::generate_pem().expect("randomness"));
    let (ours, stranger) = (&world.signer, stranger.expect("a key"));
    let of_another = ours.relay_token(&bob, now()).expect("signed");
    let for_a_sidecar = ours.caller_token(Caller::Gateway, &ada, Epoch(0), now());
    let for_the_vault = ours.vault_admin_token(now()).expect("signed");
    let by_a_stranger = stranger.relay_token(&ada, now()).expect("signed");
    for token in [
        of_another,
        for_a_sidecar.expect("signed"),
        for_the_vault,
        by_a_stranger,
    ] {
        let answer = world
            .nobody()
            .bearer(&token)
            .get(&path("ada", "0.0", true))
            .await;
        assert_eq!(answer.is(404).problem(), "not_found");
    }
    for client in [world.nobody(), world.operator(), learner] {
        let answer = client.get(&path("ada", "0.0", true)).await;
        assert_eq!(answer.is(404).problem(), "not_found");
    }
}

#[tokio::test]
async fn a_client_elsewhere_gets_the_text_from_before_the_durable_events_that_it_has() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    world.fleet.script("ada", [Act::UseTool("one ", "two")]);
    let mut early = streamed(&ada, "ada", "k", "note this").await;
    let seen = early.until(|event| event.data["status"] == "done").await;
    let tool = seen[seen.len() - 1].id.clone();
    for (fresh, names) in [(true, &["delta"][..]), (false, &["restart", "delta"])] {
        let token = world
            .signer
            .relay_token(&"ada".parse().expect("a label"), now());
        let other = world.nobody().bearer(&token.expect("signed"));
        let path = path("ada", &tool, fresh);
        let answer = other.send(Method::GET, &path, Bytes::new()).await;
        let mut body = answer.into_body();
        for name in names {
            let frame = body.frame().await.expect("it goes on").expect("whole");
            let line: Value =
                serde_json::from_slice(&frame.into_data().expect("data")).expect("a line of JSON");
            assert_eq!(line["event"]["type"], *name, "{line}");
            if *name == "delta" {
                assert_eq!(line["event"]["text"], "one ", "{line}");
            }
        }
    }
    world.fleet.pod("ada").go_on.send_replace(true);
    early.outcome().await;
}

/// A gateway that runs a turn of which it has said this.
async fn elsewhere(listener: TcpListener, line: &Value) -> std::io::Result<()> {
    let (mut asking, _) = listener.accept().await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(asking.read_u8().await?);
    }
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{line}\n");
    asking.write_all(answer.as_bytes()).await?;
    asking.read_u8().await.map(drop)
}

#[tokio::test]
async fn who_runs_a_turn_that_was_nobodys_is_asked_again() {
    let mut world = World::new().await;
    world.settings.among_others = true;
    world.restart().await;
    let ada = world.learner("ada").await;
    // It gives streams still, and runs nothing any more.
    world.handle.drain().await;
    let learner: carrel_core::LearnerId = "ada".parse().expect("a label");
    let message = message(&learner, "k");
    let turn_id = message.turn_id;
    world.store.accept(&message, now()).await.expect("accepted");
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    let queued = events.until(|event| event.data["state"] == "queued").await;
    let after = queued[queued.len() - 1].place();
    // Nobody writes to the log from here on, and nobody says that the turn has an owner now.
    ada.get("/v1/learners/ada/messages").await.is(200);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let owner = Process {
        id: OwnerId(Uuid::from_u128(9)),
        role: Role::Gateway,
        address: format!("http://{}", listener.local_addr().expect("an address")),
        report: String::new(),
    };
    let until = now() + SignedDuration::from_secs(60);
    world
        .store
        .announce(&owner, now(), until)
        .await
        .expect("told");
    let claimed = world.store.claim(&learner, owner.id, now(), until).await;
    claimed.expect("claimed").expect("it waits");
    let delta = json!({"type": "delta", "turn_id": turn_id, "text": "from far away"});
    let line = json!({"id": format!("{}.1", after.0), "event": delta});
    let heard = events.until(|event| event.data["text"] == "from far away");
    tokio::select! {
        heard = heard => assert_eq!(heard[heard.len() - 1].name, "delta"),
        // Its signs of life keep the stream open.
        () = tokio::time::sleep(ASKED_AGAIN_WITHIN) => panic!("nobody was asked again"),
        ended = elsewhere(listener, &line) => panic!("it left: {ended:?}"),
    }
}
