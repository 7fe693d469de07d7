//! What one gateway gives another: a learner's stream, to the bearer of a gateway's token for that learner alone.

use carrel_core::Epoch;
use carrel_protocol::token::{Caller, Signer};
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use serde_json::Value;

use crate::pod::Act;
use crate::world::{World, now, streamed};

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
