//! Processes that are told to end, one after the other, while learners work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::up::signal;
use carrel_tests::{Member, Roles, eventually};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

use crate::clients::{Balancer, Learner};
use crate::{School, school_with};

/// For how long processes of most of these tests say that they go.
const DRAIN_SECONDS: u32 = 2;
/// The processes say so at once; so long may a busy machine take to show it.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(3);
/// Longer than that, so that they are still there to say it.
const SHOWN_SECONDS: u32 = 5;

/// One whose processes say for so long that they go.
async fn school_that_drains(test: &str, seconds: u32) -> anyhow::Result<Option<School>> {
    let set = |roles: &mut Roles| {
        let seconds = seconds.to_string();
        roles
            .variables
            .push(("CARREL_HEALTH_DRAIN_SECONDS", seconds));
        Ok(())
    };
    school_with(test, set).await
}

/// What `/readyz` answers there; nothing when nobody is there any more.
async fn readiness(url: &str) -> anyhow::Result<Option<(StatusCode, String)>> {
    let answer = reqwest::get(format!("{url}/readyz")).await;
    let Ok(answer) = answer else {
        return Ok(None);
    };
    Ok(Some((answer.status(), answer.text().await?)))
}

async fn goes(url: &str) -> anyhow::Result<bool> {
    let said = readiness(url).await?.context("it answers still")?;
    Ok(said.0 == StatusCode::SERVICE_UNAVAILABLE && said.1.contains("stop"))
}

/// Of a role that was just told to end.
async fn says_that_it_goes(role: &Member) -> anyhow::Result<()> {
    eventually("it says that it goes", SAYS_SO_WITHIN, || async {
        Ok(goes(role.text("health_url")).await?.then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_to_end_says_so_and_works_on_until_balancers_have_heard()
-> anyhow::Result<()> {
    let Some(mut school) = school_that_drains("told to end", SHOWN_SECONDS).await? else {
        return Ok(());
    };
    let mut idle = school.roles.start("gateway").await?;
    let api = school.roles.api(&idle)?;
    let began = Instant::now();
    signal(idle.pid(), Signal::TERM)?;
    says_that_it_goes(&idle).await?;
    // Balancers before gateways ask at the address to which they send.
    assert!(goes(idle.text("url")).await?);
    // Whoever was not told yet is served as before.
    let accepted = api.post("ada", "count", "k").await?;
    let status = idle.ended().await?;
    assert!(status.success(), "{status}: {}", idle.log()?);
    assert!(began.elapsed() >= Duration::from_secs(SHOWN_SECONDS.into()));
    let other = school.roles.api(&school.gateway)?;
    eventually("the turn ends", Duration::from_secs(20), || async {
        let turn = other.turn("ada", &accepted.turn).await?;
        Ok((turn["state"] == "done").then_some(()))
    })
    .await?;
    for role in [&mut school.router, &mut school.vault] {
        signal(role.pid(), Signal::TERM)?;
        says_that_it_goes(role).await?;
        reqwest::get(role.text("url")).await?;
        let status = role.ended().await?;
        assert!(status.success(), "{status}: {}", role.log()?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_at_once() -> anyhow::Result<()> {
    let Some(mut school) = school_that_drains("told twice", 300).await? else {
        return Ok(());
    };
    for role in [&mut school.gateway, &mut school.router, &mut school.vault] {
        signal(role.pid(), Signal::TERM)?;
        says_that_it_goes(role).await?;
        let again = Instant::now();
        let status = role.terminate().await?;
        assert_eq!(status.code(), Some(130), "{status}");
        assert!(again.elapsed() < Duration::from_secs(5));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_hears_why_it_waits_while_the_vault_is_away_and_so_does_the_operator()
-> anyhow::Result<()> {
    let Some(mut school) = school_that_drains("vault away", DRAIN_SECONDS).await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    api.sleep("ada").await?;
    school.vault.kill()?;
    let mut stream = api.post_and_follow("ada", "count", "k").await?;
    while !stream
        .next()
        .await?
        .context("it goes on")?
        .text("detail")
        .contains("cannot be fetched just now")
    {}
    let within = Duration::from_secs(10);
    eventually("the operator sees the reason", within, || async {
        let document = api.learner("ada").await?;
        let shown = document["state"] == "Restoring"
            && document.to_string().contains("the vault does not answer");
        Ok(shown.then_some(()))
    })
    .await?;
    school.vault = school.roles.start("vault").await?;
    while !stream.next().await?.context("it goes on")?.is_outcome() {}
    // Whoever runs the turn lets go a moment after its outcome is told.
    eventually("it rests", within, || async {
        Ok((api.learner("ada").await?["state"] == "Ready").then_some(()))
    })
    .await?;
    assert_eq!(api.reply("ada", "count").await?, "3");
    Ok(())
}

/// Starts every process anew, one after the other; each time all learners have worked on before the next.
async fn restart_all(
    school: &mut School,
    second: &mut Member,
    balancer: &Balancer,
    learners: &[Learner],
) -> anyhow::Result<()> {
    let known = |roles: &Roles, gateways: [&Member; 2]| -> anyhow::Result<()> {
        let known = gateways.map(|gateway| {
            let api = roles.api(gateway)?;
            anyhow::Ok((gateway.text("health_url").to_owned(), api))
        });
        balancer.set(known.into_iter().collect::<anyhow::Result<_>>()?);
        Ok(())
    };
    known(&school.roles, [&school.gateway, second])?;
    for role in ["gateway", "another gateway", "router", "vault", "fleet"] {
        let before: Vec<_> = learners.iter().map(Learner::outcomes).collect();
        for (learner, before) in learners.iter().zip(&before) {
            learner.has_heard(before + 1).await?;
        }
        let member = match role {
            "gateway" => &mut school.gateway,
            "another gateway" => &mut *second,
            "router" => &mut school.router,
            "vault" => &mut school.vault,
            _ => &mut school.fleet,
        };
        let status = member.terminate().await?;
        assert!(status.success(), "{role}: {status}");
        *member = school
            .roles
            .start(role.rsplit(' ').next().unwrap_or(role))
            .await?;
        known(&school.roles, [&school.gateway, second])?;
        let before: Vec<_> = learners.iter().map(Learner::outcomes).collect();
        for (learner, before) in learners.iter().zip(&before) {
            learner.has_heard(before + 2).await?;
        }
    }
    for learner in learners {
        learner.comes_to_an_end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn learners_do_not_notice_that_every_process_is_started_anew() -> anyhow::Result<()> {
    let Some(mut school) = school_that_drains("started anew", DRAIN_SECONDS).await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    let bob = Some(json!({"id": "bob", "class": "default"}));
    api.admin(Method::POST, "learners", bob).await?;
    let mut second = school.roles.start("gateway").await?;
    let balancer = Arc::new(Balancer::default());
    let learners = [
        Learner::new("ada", "slow 60", &balancer),
        // Whose tutor asks the model.
        Learner::new("bob", "What is 7 × 8?", &balancer),
    ];
    let restarts = restart_all(&mut school, &mut second, &balancer, &learners);
    tokio::select! {
        restarted = restarts => restarted?,
        ended = learners[0].works() => ended?,
        ended = learners[1].works() => ended?,
    }
    let counted = learners[0].replies();
    for (number, reply) in (1..).zip(&counted) {
        assert!(
            reply.starts_with(&format!("{number} 1 2 3 ")),
            "{number}: {reply}"
        );
    }
    let answered = learners[1].replies();
    assert!(
        answered.iter().all(|reply| reply.contains("56")),
        "{answered:?}"
    );
    println!("{} and {} messages", counted.len(), answered.len());
    Ok(())
}
