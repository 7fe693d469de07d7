//! The ways out of a pod, and the way in.

use carrel_sidecar::Exit;
use carrel_testkit::until;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::pod::{Pod, command, skip, talkative};

#[tokio::test]
async fn model_calls_carry_the_learners_token_and_never_the_agents_key() {
    let pod = Pod::ready(talkative()).await;
    let seen: Value =
        serde_json::from_str(&pod.said("model /v1/messages?beta=true").await).expect("JSON");
    assert_eq!(seen["path"], "/v1/messages?beta=true");
    let bearer = pod.vault.ledger(|ledger| ledger.bearers[0].clone());
    assert_eq!(seen["authorization"], bearer.as_str());
    assert_eq!(seen["x-api-key"], Value::Null);
    let refused = pod.said("model /admin/v1/learners").await;
    assert!(refused.contains("not_found_error"), "{refused}");
}

#[tokio::test]
async fn the_agents_own_server_is_reached_without_our_token() {
    let pod = Pod::ready(talkative()).await;
    let request = pod.call(Method::PUT, "/agent/echo/a%20b?c=d").body("text");
    let seen: Value = request
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(seen["uri"], "/echo/a%20b?c=d");
    assert_eq!(seen["body"], "text");
    assert_eq!(seen["authorised"], false);
    let silent = Pod::ready(command("cat")).await;
    let answer = silent
        .call(Method::GET, "/agent/")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 502);
}

async fn websocket(pod: &Pod) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(pod.path("s.sock"))
        .await
        .expect("connected");
    let mut request = "ws://pod/agent/socket"
        .into_client_request()
        .expect("a request");
    let token = pod
        .call(Method::GET, "/")
        .build()
        .expect("a request")
        .headers()["authorization"]
        .clone();
    request.headers_mut().insert("authorization", token);
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .expect("a websocket");
    socket
}

#[tokio::test]
async fn a_websocket_to_the_agent_stays_open_and_counts_as_activity() {
    let pod = Pod::ready(talkative()).await;
    let mut socket = websocket(&pod).await;
    for text in ["one", "two"] {
        socket.send(text.into()).await.expect("sent");
        let back = socket.next().await.expect("a message").expect("read");
        assert_eq!(back.into_text().expect("text").as_str(), text);
    }
    assert_eq!(pod.hello().await.quiet_since, None);
    socket.close(None).await.expect("closed");
    while socket.next().await.is_some() {}
    drop(socket);
    let is_quiet = async || pod.hello().await.quiet_since.is_some();
    until("it is quiet again", is_quiet).await;
}

#[tokio::test]
async fn one_that_is_awake_too_long_sleeps_although_a_websocket_is_open() {
    let mut class = talkative();
    class.idle.max_awake_seconds = 1;
    let mut pod = Pod::ready(class).await;
    let mut socket = websocket(&pod).await;
    socket.send("kept open".into()).await.expect("sent");
    assert_eq!(pod.exit().await, Exit::Clean);
}

#[tokio::test]
async fn the_way_out_is_closed_unless_the_class_names_the_host() {
    let mut class = talkative();
    class.egress.allow = vec!["localhost".to_owned(), "127.0.0.0/8".to_owned()];
    let pod = Pod::ready(class).await;
    let carrel_protocol::Endpoint::Url(router) = &pod.router else {
        panic!("a URL")
    };
    let port = router.rsplit(':').next().expect("a port");
    let refused = pod.said("connect example.org:443").await;
    assert!(
        refused.starts_with("HTTP/1.1 403") && refused.contains("egress.allow"),
        "{refused}"
    );
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        let refused = pod.said(&format!("connect {host}:{port}")).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{host}: {refused}");
    }
}

#[tokio::test]
async fn an_allowed_host_is_reached_through_the_tunnel() {
    let Some(address) = own_address() else {
        let reason = "this machine has no address beside loopback";
        return skip("an_allowed_host_is_reached", "network", reason);
    };
    let listener = tokio::net::TcpListener::bind((address, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let mut class = talkative();
    class.egress.allow = vec![format!("{address}/32")];
    let pod = Pod::ready(class).await;
    let answer = pod.said(&format!("connect {address}:{port}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello\n"),
        "{answer}"
    );
}

/// The address that this machine would call others from; nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}
