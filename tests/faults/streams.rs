//! A client that leaves in the middle and comes back with `Last-Event-ID` has everything once.

use carrel_tests::stream::text_of;
use carrel_tests::{Event, Place, Stream, seed};
use rand::Rng as _;
use serde_json::json;

use crate::with_ada;

/// Reads some events; whether the turn's outcome was among them.
async fn read(
    stream: &mut Stream,
    most: usize,
    turn: &str,
    events: &mut Vec<Event>,
) -> anyhow::Result<bool> {
    for _ in 0..most {
        let Some(event) = stream.next().await? else {
            return Ok(false);
        };
        let over = event.is_outcome() && event.text("turn_id") == turn;
        events.push(event);
        if over {
            return Ok(true);
        }
    }
    Ok(false)
}

fn places(events: &[Event]) -> Vec<(Place, String)> {
    events
        .iter()
        .map(|event| (event.place, event.data.to_string()))
        .collect()
}

#[tokio::test]
async fn a_client_that_leaves_and_returns_sees_what_one_that_stayed_sees() -> anyhow::Result<()> {
    let test = "a client that leaves";
    let Some(up) = with_ada(test, &json!({})).await? else {
        return Ok(());
    };
    let mut lots = seed::lots(test);
    let api = &up.api;
    let accepted = api.post("ada", "slow 60", "k").await?;
    let mut staying = api.events("ada", None).await?;
    let (mut stayed, mut left, mut last, mut visits) = (Vec::new(), Vec::new(), None, 0);
    loop {
        let mut stream = api.events("ada", last).await?;
        visits += 1;
        if read(
            &mut stream,
            lots.random_range(1..9),
            &accepted.turn,
            &mut left,
        )
        .await?
        {
            break;
        }
        last = stream.last();
    }
    assert!(read(&mut staying, usize::MAX, &accepted.turn, &mut stayed).await?);
    println!("{visits} visits, {} events", left.len());
    assert!(visits > 5);
    let reply = &left.last().expect("it was read to the outcome").data["reply"]["text"];
    assert_eq!(
        text_of(&left, &accepted.turn),
        reply.as_str().unwrap_or_default()
    );
    let deltas = |events: &[Event]| text_of(events, &accepted.turn);
    assert_eq!(deltas(&left), deltas(&stayed));
    assert_eq!(places(&left), places(&stayed));
    Ok(())
}

#[tokio::test]
async fn a_client_returns_to_a_server_that_was_killed_meanwhile() -> anyhow::Result<()> {
    let test = "a client returns after a kill";
    let Some(mut up) = with_ada(test, &json!({})).await? else {
        return Ok(());
    };
    let mut lots = seed::lots(test);
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    let accepted = up.api.post("ada", "slow 40", "k").await?;
    let (mut events, mut last, mut kills) = (Vec::new(), None, 0);
    loop {
        let mut stream = up.api.events("ada", last).await?;
        let before = events.len();
        let most = lots.random_range(15..40);
        if read(&mut stream, most, &accepted.turn, &mut events).await? {
            break;
        }
        last = stream.last();
        if kills < 3 && events[before..].iter().any(|event| event.name == "delta") {
            up.kill()?;
            kills += 1;
            // What was sent before the kill and not read yet counts as read, as in a browser.
            let _ = read(&mut stream, usize::MAX, &accepted.turn, &mut events).await?;
            last = stream.last();
            up.again().await?;
        }
    }
    assert!(kills > 1, "it was killed in the middle of the text");
    let of_turn = |event: &&Event| event.text("turn_id") == accepted.turn;
    let outcomes: Vec<_> = events
        .iter()
        .filter(of_turn)
        .filter(|event| event.is_outcome())
        .collect();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    let reply = outcomes[0].data["reply"]["text"]
        .as_str()
        .unwrap_or_default();
    println!("{kills} kills, {} events, reply {reply}", events.len());
    assert!(
        reply.starts_with("2 1 2 3 ") && reply.ends_with(" 40"),
        "{reply}"
    );
    assert_eq!(text_of(&events, &accepted.turn), reply);
    let mut ids: Vec<_> = events.iter().map(|event| event.place).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "no id was used twice");
    assert_eq!(up.api.logged("ada", "done").await?.len(), 2);
    Ok(())
}
