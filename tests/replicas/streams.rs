//! A stream that is opened at one gateway shows a turn that another runs, whoever dies.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::stream::text_of;
use carrel_tests::{Event, Stream};

use crate::school;

/// A dead gateway's turn goes on at another within this.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Reads until so many deltas of the turn came, or its outcome.
async fn read(
    stream: &mut Stream,
    turn: &str,
    deltas: usize,
    events: &mut Vec<Event>,
) -> anyhow::Result<()> {
    let mut seen = 0;
    while seen < deltas {
        let event = stream.next().await?.context("the stream goes on")?;
        let of_turn = event.text("turn_id") == turn;
        seen += usize::from(of_turn && event.name == "delta");
        let over = of_turn && event.is_outcome();
        events.push(event);
        if over {
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_a_turn_that_another_gateway_runs_and_then_a_third() -> anyhow::Result<()> {
    let Some(mut school) = school("streams of others").await? else {
        return Ok(());
    };
    let owner = school.roles.api(&school.gateway)?;
    assert_eq!(owner.reply("ada", "count").await?, "1");
    let second = school.roles.start("gateway").await?;
    let watched = school.roles.api(&second)?;
    let accepted = owner.post("ada", "slow 400", "k").await?;
    // The gateway that takes a message runs its turn, as long as nobody else is quicker.
    let mut events = Vec::new();
    let mut stream = watched.events("ada", None).await?;
    read(&mut stream, &accepted.turn, 20, &mut events).await?;
    let live = events.iter().filter(|event| event.name == "delta").count();
    assert!(live >= 20, "{live} pieces came while it ran: {events:?}");

    // Whichever runs it: both are killed in turn, and a client of the other one misses nothing.
    let third = school.roles.start("gateway").await?;
    let staying = school.roles.api(&third)?;
    let mut staying = staying.events("ada", stream.last()).await?;
    let killed = Instant::now();
    school.gateway.kill()?;
    drop(second);
    let before = events.len();
    read(&mut staying, &accepted.turn, 1, &mut events).await?;
    let took = killed.elapsed();
    println!("text goes on after {took:?}");
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    read(&mut staying, &accepted.turn, usize::MAX, &mut events).await?;
    let names: Vec<_> = events[before..]
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert!(names.contains(&"restart"), "{names:?}");
    let outcome = events.last().context("it ended")?;
    assert_eq!(outcome.name, "done", "{outcome:?}");
    let reply = outcome.data["reply"]["text"].as_str().unwrap_or_default();
    assert!(
        reply.starts_with("2 1 2 3 ") && reply.ends_with(" 400"),
        "{reply}"
    );
    assert_eq!(text_of(&events, &accepted.turn), reply);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_slept_past_its_lease_writes_nothing() -> anyhow::Result<()> {
    let Some(school) = school("a gateway that slept").await? else {
        return Ok(());
    };
    let owner = school.roles.api(&school.gateway)?;
    assert_eq!(owner.reply("ada", "count").await?, "1");
    let accepted = owner.post("ada", "slow 400", "k").await?;
    let mut events = Vec::new();
    let mut stream = owner.events("ada", None).await?;
    read(&mut stream, &accepted.turn, 5, &mut events).await?;
    school.gateway.pause(true)?;
    let second = school.roles.start("gateway").await?;
    let other = school.roles.api(&second)?;
    let mut stream = other.events("ada", stream.last()).await?;
    read(&mut stream, &accepted.turn, usize::MAX, &mut events).await?;
    school.gateway.pause(false)?;
    let outcome = events.last().context("it ended")?;
    assert_eq!(outcome.name, "done", "{outcome:?}");
    let reply = outcome.data["reply"]["text"].as_str().unwrap_or_default();
    assert_eq!(text_of(&events, &accepted.turn), reply);
    // It wakes up, finds that the turn is not its own, and goes on with the next.
    assert_eq!(owner.reply("ada", "count").await?, "3");
    assert_eq!(owner.logged("ada", "done").await?.len(), 3);
    assert_eq!(
        owner.logged("ada", "restarted").await?.len(),
        0,
        "the attempt went on"
    );
    Ok(())
}
