//! Roles that know each other by certificates.

use std::time::Duration;

use anyhow::Context as _;
use carrel_testkit::certificates::{Authority, Certified};
use carrel_tests::stream::text_of;
use carrel_tests::{Member, eventually};
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, Method};
use serde_json::json;

use crate::streams::read;
use crate::{School, school_with};

/// Files are looked at every second, and taken when they were the same for two looks.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

async fn secured(test: &str, authority: &Authority) -> anyhow::Result<Option<School>> {
    school_with(test, |roles| roles.secure(authority)).await
}

/// A client that keeps no connection, and believes this authority alone.
fn client(authority: &Authority) -> anyhow::Result<Client> {
    let trusted = Certificate::from_pem(authority.pem.as_bytes())?;
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0);
    Ok(client.tls_certs_only([trusted]).tls_info(true).build()?)
}

/// The certificate that a role shows.
async fn shown(client: &Client, role: &Member) -> anyhow::Result<Vec<u8>> {
    let answer = client.get(role.text("url")).send().await?;
    let info = answer.extensions().get::<TlsInfo>();
    let certificate = info.and_then(TlsInfo::peer_certificate);
    Ok(certificate.context("a certificate")?.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_speak_tls_to_each_other_and_with_nobody_who_does_not_believe_them()
-> anyhow::Result<()> {
    let authority = Authority::new("the school's");
    let Some(school) = secured("certificates", &authority).await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    for role in [&school.gateway, &school.router, &school.vault] {
        let url = role.text("url");
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        shown(&client(&authority)?, role).await?;
        let elsewhere = url.replace("127.0.0.1", "localhost");
        let wrong_name = client(&authority)?.get(&elsewhere).send().await;
        assert!(wrong_name.is_err(), "{elsewhere}: {wrong_name:?}");
        let stranger = client(&Authority::new("another"))?.get(url).send().await;
        assert!(stranger.is_err(), "{url}: {stranger:?}");
        let plain = url.replace("https:", "http:");
        let plain = client(&authority)?.get(&plain).send().await;
        assert!(plain.is_err(), "{url}: {plain:?}");
    }
    // Sidecar to vault, and the gateway to it.
    assert_eq!(api.reply("ada", "count").await?, "1");
    let path = "learners/ada/snapshots";
    let kept = api.admin(Method::GET, path, None).await?;
    let snapshot = kept["snapshots"][0]["snapshot_id"].as_str();
    let path = format!("{path}/{}/verify", snapshot.context("a snapshot")?);
    let verified = api.admin(Method::POST, &path, None).await?;
    assert_eq!(verified["intact"], true, "{verified}");
    // Sidecar to router: the built-in tutor asks the stand-in model.
    let bob = Some(json!({"id": "bob", "class": "default"}));
    api.admin(Method::POST, "learners", bob).await?;
    let answer = api.reply("bob", "What is 7 × 8?").await?;
    assert!(answer.contains("56"), "{answer}");
    // Gateway to gateway: text of a turn that the other runs.
    let second = school.roles.start("gateway").await?;
    let accepted = api.post("ada", "slow 200", "k").await?;
    let owned_by = school.roles.owner().await?;
    let other = if owned_by == second.text("url") {
        &school.gateway
    } else {
        &second
    };
    let mut events = Vec::new();
    let mut stream = school.roles.api(other)?.events("ada", None).await?;
    read(&mut stream, &accepted.turn, 10, &mut events).await?;
    assert!(
        events
            .iter()
            .all(|event| event.text("turn_id") != accepted.turn || !event.is_outcome())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_shown_without_a_restart_and_cut_no_stream() -> anyhow::Result<()>
{
    let authority = Authority::new("the school's");
    let Some(school) = secured("renewed certificates", &authority).await? else {
        return Ok(());
    };
    let (api, client) = (school.roles.api(&school.gateway)?, client(&authority)?);
    assert_eq!(api.reply("ada", "count").await?, "1");
    let accepted = api.post("ada", "slow 600", "k").await?;
    let (mut events, mut stream) = (Vec::new(), api.events("ada", None).await?);
    read(&mut stream, &accepted.turn, 5, &mut events).await?;

    let roles = [&school.gateway, &school.router, &school.vault];
    let mut before = Vec::new();
    for role in roles {
        before.push(shown(&client, role).await?);
    }
    let renewed = authority.certify(&["127.0.0.1"]);
    school.roles.renew(&renewed, &authority.pem)?;
    for (role, before) in roles.into_iter().zip(&before) {
        let what = format!("{} shows the new one", role.text("url"));
        eventually(&what, TAKEN_WITHIN, || async {
            Ok((shown(&client, role).await? != *before).then_some(()))
        })
        .await?;
    }
    let now = shown(&client, &school.gateway).await?;

    // One that cannot be used changes nothing, and is named.
    let bad = Certified {
        key: authority.certify(&["127.0.0.1"]).key,
        ..renewed
    };
    school.roles.renew(&bad, &authority.pem)?;
    for role in roles {
        eventually("it is named", TAKEN_WITHIN, || async {
            let log = role.log()?;
            let is_named = log.contains("those of before stay in force")
                && log.contains("tls.key: it is not the key of the certificate");
            Ok(is_named.then_some(()))
        })
        .await?;
    }
    assert_eq!(shown(&client, &school.gateway).await?, now);

    read(&mut stream, &accepted.turn, usize::MAX, &mut events).await?;
    let outcome = events.last().context("it ended")?;
    assert_eq!(outcome.name, "done", "{outcome:?}");
    assert_eq!(
        text_of(&events, &accepted.turn),
        outcome.data["reply"]["text"]
    );
    assert!(events.iter().all(|event| event.name != "restart"));
    assert_eq!(api.reply("ada", "count").await?, "3");
    Ok(())
}
