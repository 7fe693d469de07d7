//! A message that is sent again is the same message.

use carrel_tests::Accepted;
use futures::future::try_join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::with_ada;

#[tokio::test]
async fn the_same_key_fifty_times_at_once_is_one_message_with_one_answer() -> anyhow::Result<()> {
    let Some(up) = with_ada("the same key", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    let sent = try_join_all((0..50).map(|_| api.post("ada", "count", "once"))).await?;
    let first: &Accepted = &sent[0];
    assert!(sent.iter().all(|accepted| accepted == first), "{sent:?}");
    let mut stream = api.post_and_follow("ada", "count", "once").await?;
    let mut outcomes = 0;
    while let Some(event) = stream.next().await? {
        outcomes += usize::from(event.is_outcome());
        assert_eq!(event.text("turn_id"), first.turn);
    }
    assert_eq!(outcomes, 1);
    for kind in ["queued", "started", "done"] {
        assert_eq!(api.logged("ada", kind).await?.len(), 1, "{kind}");
    }
    let (_, history) = api
        .call(Method::GET, "/v1/learners/ada/messages", None)
        .await?;
    assert_eq!(
        history["messages"].as_array().map(Vec::len),
        Some(1),
        "{history}"
    );
    assert_eq!(api.reply("ada", "count").await?, "2", "it was counted once");

    let refused = api
        .post("ada", "something else", "once")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(StatusCode::UNPROCESSABLE_ENTITY.as_str()),
        "{refused}"
    );
    println!("50 posts, one turn: {}", first.turn);
    Ok(())
}
