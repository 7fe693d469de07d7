//! What an agent serves in its container, through the gateway: pages and WebSockets.

use anyhow::Context as _;
use carrel_tests::agent::WEBSOCKET_KEY;
use carrel_tests::machine;
use futures::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::with_ada;

#[tokio::test]
async fn pages_and_websockets_of_an_agent_are_reached_and_wake_it() -> anyhow::Result<()> {
    let Some(up) = with_ada("an agent's pages", &json!({})).await? else {
        return Ok(());
    };
    let url = format!("{}/l/ada", up.text("gateway_url"));
    let made = up.api.admin(Method::POST, "learners/ada/tokens", None);
    let made = made.await?;
    let token = made["token"].as_str().context("a token")?;
    let client = reqwest::Client::builder().no_proxy().build()?;

    assert!(machine::pods(up.pid()).is_empty());
    let asked = client.post(format!("{url}/notes/today?all=1"));
    let page = asked.bearer_auth(token).body("hello").send().await?;
    assert_eq!(page.status(), 200);
    assert!(!page.headers().contains_key("set-cookie"));
    let policy = page.headers().get("content-security-policy");
    assert_eq!(
        policy.context("a policy")?,
        "sandbox allow-scripts allow-forms"
    );
    assert_eq!(page.text().await?, "POST /notes/today?all=1\nhello");
    assert_eq!(machine::pods(up.pid()).len(), 1, "it was woken");
    let operator = client.get(format!("{url}/")).bearer_auth(up.api.token());
    let refused = operator.send().await?.status();
    assert!(refused.is_client_error(), "{refused}");

    // Asleep again: this, too, wakes it.
    up.api.sleep("ada").await?;
    let mut request = format!("{url}/live")
        .replace("http://", "ws://")
        .into_client_request()?;
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse()?);
    headers.insert("sec-websocket-key", WEBSOCKET_KEY.parse()?);
    let (mut socket, answer) = tokio_tungstenite::connect_async(request).await?;
    assert_eq!(answer.status(), 101);
    for text in ["one", "two and more"] {
        socket.send(Message::text(text)).await?;
        let echoed = socket.next().await.context("a message")??;
        assert_eq!(echoed.into_text()?.as_str(), text);
    }
    socket.close(None).await?;
    let said_goodbye = socket.next().await.context("a last word")??;
    assert!(said_goodbye.is_close(), "{said_goodbye:?}");
    assert_eq!(up.api.reply("ada", "count").await?, "1", "and it goes on");
    Ok(())
}
