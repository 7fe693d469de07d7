//! A stream that is opened at one gateway shows a turn that another runs, whoever dies.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::stream::text_of;
use carrel_tests::{Event, Member, Roles, Stream};

use crate::swallower::Swallower;
use crate::{school, school_with};

/// How other gateways reach one.
const RELAY_URL: &str = "CARREL_GATEWAY_RELAY_URL";

/// A dead gateway's turn goes on at another within this.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Reads until so many deltas of the turn came, or its outcome.
pub(crate) async fn read(
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

pub(crate) fn assert_whole(events: &[Event], turn: &str, pieces: u32) -> anyhow::Result<()> {
    let outcome = events.last().context("it ended")?;
    assert_eq!(outcome.name, "done", "{outcome:?}");
    let reply = outcome.data["reply"]["text"].as_str().unwrap_or_default();
    assert!(
        reply.starts_with("2 1 2 3 ") && reply.ends_with(&format!(" {pieces}")),
        "{reply}"
    );
    assert_eq!(text_of(events, turn), reply);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_a_turn_that_another_gateway_runs_and_then_a_third() -> anyhow::Result<()> {
    let Some(school) = school("streams of others").await? else {
        return Ok(());
    };
    let mut gateways = vec![school.gateway];
    for _ in 0..2 {
        gateways.push(school.roles.start("gateway").await?);
    }
    let first = school.roles.api(&gateways[0])?;
    assert_eq!(first.reply("ada", "count").await?, "1");
    let accepted = first.post("ada", "slow 800", "k").await?;
    let address = school.roles.owner().await?;
    let is_owner = |gateway: &Member| gateway.text("url") == address;
    let place = gateways.iter().position(is_owner);
    let mut owning = gateways.remove(place.context("one of them owns it")?);
    // Clients of both others, one of which has left and come back in the middle.
    let (mut staying, mut coming) = (Vec::new(), Vec::new());
    let mut stays = school.roles.api(&gateways[0])?.events("ada", None).await?;
    read(&mut stays, &accepted.turn, 20, &mut staying).await?;
    let mut comes = school.roles.api(&gateways[1])?.events("ada", None).await?;
    read(&mut comes, &accepted.turn, 20, &mut coming).await?;
    let last = comes.last();
    drop(comes);
    let mut comes = school.roles.api(&gateways[1])?.events("ada", last).await?;
    read(&mut comes, &accepted.turn, 5, &mut coming).await?;

    let killed = Instant::now();
    owning.kill()?;
    for (stream, events) in [(&mut stays, &mut staying), (&mut comes, &mut coming)] {
        let before = events.len();
        while !events[before..].iter().any(|event| event.name == "restart") {
            read(stream, &accepted.turn, 1, events).await?;
        }
        let took = killed.elapsed();
        println!("text goes on after {took:?}");
        assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    }
    let taken_by = school.roles.owner().await?;
    assert!(
        gateways
            .iter()
            .any(|gateway| gateway.text("url") == taken_by)
    );
    for (stream, events) in [(&mut stays, &mut staying), (&mut comes, &mut coming)] {
        read(stream, &accepted.turn, usize::MAX, events).await?;
        assert_whole(events, &accepted.turn, 800)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_owner_that_brings_nothing_any_more_is_given_up() -> anyhow::Result<()>
{
    let (first, second) = (Swallower::start().await?, Swallower::start().await?);
    let reached_by = |roles: &mut Roles, swallower: &Swallower| {
        roles.variables.retain(|(name, _)| *name != RELAY_URL);
        roles.variables.push((RELAY_URL, swallower.url()));
        Ok(())
    };
    let set = |roles: &mut Roles| reached_by(roles, &first);
    let Some(mut school) = school_with("swallowed", set).await? else {
        return Ok(());
    };
    first.leads_to(school.gateway.text("url"));
    reached_by(&mut school.roles, &second)?;
    let other = school.roles.start("gateway").await?;
    second.leads_to(other.text("url"));
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let accepted = api.post("ada", "slow 800", "k").await?;
    let (there, listens) = if school.roles.owner().await? == first.url() {
        (&first, &other)
    } else {
        (&second, &school.gateway)
    };
    let (mut events, mut stream) = (
        Vec::new(),
        school.roles.api(listens)?.events("ada", None).await?,
    );
    read(&mut stream, &accepted.turn, 10, &mut events).await?;
    there.swallow();
    let before = events.len();
    read(&mut stream, &accepted.turn, usize::MAX, &mut events).await?;
    // It went on as it was said; from the log it would have come at the end, in one piece.
    let pieces = events[before..]
        .iter()
        .filter(|event| event.name == "delta");
    assert!(pieces.count() > 100, "nothing came until the end");
    assert_whole(&events, &accepted.turn, 800)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_slept_past_its_lease_writes_nothing() -> anyhow::Result<()> {
    let Some(school) = school("a gateway that slept").await? else {
        return Ok(());
    };
    let sleepy = school.roles.api(&school.gateway)?;
    assert_eq!(sleepy.reply("ada", "count").await?, "1");
    let accepted = sleepy.post("ada", "slow 1200", "k").await?;
    let mut events = Vec::new();
    let mut its_own = sleepy.events("ada", None).await?;
    read(&mut its_own, &accepted.turn, 5, &mut events).await?;
    school.gateway.pause(true)?;
    let second = school.roles.start("gateway").await?;
    let other = school.roles.api(&second)?;
    let (mut elsewhere, mut stream) = (events.clone(), other.events("ada", its_own.last()).await?);
    read(&mut stream, &accepted.turn, 10, &mut elsewhere).await?;
    assert_eq!(school.roles.owner().await?, second.text("url"));
    // It wakes up, finds that the turn is not its own, and its clients hear the rest as it is said.
    school.gateway.pause(false)?;
    read(&mut its_own, &accepted.turn, 3, &mut events).await?;
    assert_eq!(school.roles.owner().await?, second.text("url"));
    read(&mut its_own, &accepted.turn, usize::MAX, &mut events).await?;
    assert_whole(&events, &accepted.turn, 1200)?;
    let again = events.iter().rposition(|event| event.name == "restart");
    let pieces = events[again.context("the new owner began again")?..]
        .iter()
        .filter(|event| event.name == "delta");
    let pieces = pieces.count();
    assert!(pieces > 100, "the rest came in {pieces} pieces");
    read(&mut stream, &accepted.turn, usize::MAX, &mut elsewhere).await?;
    assert_whole(&elsewhere, &accepted.turn, 1200)?;
    assert_eq!(sleepy.reply("ada", "count").await?, "3");
    assert_eq!(sleepy.logged("ada", "done").await?.len(), 3);
    let restarted = sleepy.logged("ada", "restarted").await?;
    assert_eq!(restarted.len(), 0, "the attempt went on");
    Ok(())
}
