//! How long the text of a turn stands still at a client of another gateway when the gateway that runs the turn is killed.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use carrel_tests::figures::Figures;
use carrel_tests::{Roles, Stream, agent};
use serde_json::json;

use crate::RUNS;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let documents = [
        agent::http("counting", &json!({})),
        agent::learner("ada", "counting"),
    ];
    let mut slowest: f64 = 0.0;
    for _ in 0..RUNS {
        let roles = Roles::prepare("takeover", &documents)?;
        let roles = roles.context("it is measured with PostgreSQL and S3's protocol")?;
        slowest = slowest.max(stands_still(&roles).await?);
    }
    figures.at_most(
        "a gateway is killed in mid-turn: text goes on at a client of another gateway, slowest of three",
        "s",
        &[(slowest, 10.0)],
    );
    Ok(())
}

/// In seconds.
async fn stands_still(roles: &Roles) -> anyhow::Result<f64> {
    let mut gateways = vec![roles.start("gateway").await?];
    let _fleet = roles.start("fleet").await?;
    let _router = roles.start("router").await?;
    let _vault = roles.start("vault").await?;
    gateways.push(roles.start("gateway").await?);
    let api = roles.api(&gateways[0])?;
    ensure!(api.reply("ada", "count").await? == "1", "the agent counts");
    let turn = api.post("ada", "slow 800", "k").await?.turn;
    let address = roles.owner().await?;
    let is_owner = |gateway: &carrel_tests::Member| gateway.text("url") == address;
    let place = gateways.iter().position(is_owner);
    let mut owning = gateways.remove(place.context("one of them owns it")?);
    let mut stream = roles.api(&gateways[0])?.events("ada", None).await?;
    until(&mut stream, &turn, "delta").await?;
    owning.kill()?;
    let killed = Instant::now();
    until(&mut stream, &turn, "restart").await?;
    until(&mut stream, &turn, "delta").await?;
    Ok(killed.elapsed().as_secs_f64())
}

async fn until(stream: &mut Stream, turn: &str, name: &str) -> anyhow::Result<()> {
    loop {
        let event = stream.next().await?.context("the stream goes on")?;
        if event.text("turn_id") == turn && event.name == name {
            return Ok(());
        }
        ensure!(
            !event.is_outcome() || event.text("turn_id") != turn,
            "it ended: {event:?}"
        );
    }
}
