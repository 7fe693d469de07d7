//! Learners whose pods gateways reach through the fleet's door, over a network that falls silent.

use std::time::{Duration, Instant};

use carrel_testkit::certificates::Authority;
use carrel_tests::Roles;

use crate::school_with;
use crate::streams::{assert_whole, read};
use crate::swallower::Swallower;

/// After so long a silence at most a gateway has come in again.
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_on_when_the_way_to_its_pod_falls_silent() -> anyhow::Result<()> {
    let way = Swallower::start().await?;
    let authority = Authority::new("the school's");
    let set = |roles: &mut Roles| {
        let url = way.url().replace("http:", "https:");
        roles.variables.push(("CARREL_FLEET_URL", url));
        roles.secure(&authority)
    };
    let Some(school) = school_with("a silent way to a pod", set).await? else {
        return Ok(());
    };
    way.leads_to(&school.fleet.text("url").replace("https:", "http:"));
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let accepted = api.post("ada", "slow 800", "k").await?;
    let (mut events, mut stream) = (Vec::new(), api.events("ada", None).await?);
    read(&mut stream, &accepted.turn, 10, &mut events).await?;
    way.swallow();
    let silent = Instant::now();
    // What was on its way through the gateway itself, and one piece more.
    let before = events.len();
    read(&mut stream, &accepted.turn, 20, &mut events).await?;
    let took = silent.elapsed();
    println!("text goes on after {took:?}");
    assert!(took < BACK_WITHIN, "{took:?}");
    assert!(events[before..].iter().all(|event| !event.is_outcome()));
    read(&mut stream, &accepted.turn, usize::MAX, &mut events).await?;
    assert_whole(&events, &accepted.turn, 800)?;
    // The same attempt went on.
    assert!(events.iter().all(|event| event.name != "restart"));
    assert_eq!(api.reply("ada", "count").await?, "3");
    Ok(())
}
