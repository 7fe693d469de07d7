//! What a learner and an operator see of processes that work together.

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::eventually;
use carrel_tests::roles::How;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::school;

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_wakes_is_answered_sleeps_and_comes_back() -> anyhow::Result<()> {
    let Some(school) = school("roles together").await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    assert_eq!(api.reply("ada", "count").await?, "2");
    let document = api.learner("ada").await?;
    assert_eq!(document["isolation"], "oci", "{document}");
    api.sleep("ada").await?;
    let says_more = How {
        variables: vec![(
            "CARREL_TELEMETRY_LOG_FILTER",
            "carrel_gateway=info".to_owned(),
        )],
        ..How::default()
    };
    let second = school.roles.start_as("gateway", &says_more).await?;
    let other = school.roles.api(&second)?;
    assert_eq!(other.reply("ada", "count").await?, "3");

    let snapshots = api
        .admin(Method::GET, "learners/ada/snapshots", None)
        .await?;
    let snapshots = snapshots["snapshots"].as_array().context("a list")?;
    let oldest = snapshots.last().context("three turns")?["snapshot_id"].clone();
    let path = format!(
        "learners/ada/snapshots/{}/verify",
        oldest.as_str().unwrap_or_default()
    );
    let check = api.admin(Method::POST, &path, None).await?;
    assert_eq!(check["intact"], true, "{check}");
    let body = Some(json!({"snapshot_id": oldest}));
    api.admin(Method::POST, "learners/ada/restore", body)
        .await?;
    assert_eq!(other.reply("ada", "count").await?, "2");
    let rewrapped = api.admin(Method::POST, "vault/rewrap", None).await?;
    assert_eq!(rewrapped["left"], 1, "{rewrapped}");

    other.admin(Method::DELETE, "learners/ada", None).await?;
    eventually("ada is gone", Duration::from_secs(20), || async {
        let (status, _) = api
            .call(Method::GET, "/admin/v1/learners/ada", None)
            .await?;
        let stirring = school.roles.server.psql(
            &school.roles.database,
            "SELECT count(*) FROM learner WHERE id = 'ada'",
        );
        Ok((status == StatusCode::NOT_FOUND && stirring.trim() == "0").then_some(()))
    })
    .await?;
    // Its rows go last, by the vault: after that the gateway asks for nothing more, and says so once it is told.
    let asked = eventually(
        "the gateway is done with it",
        Duration::from_secs(20),
        || async {
            let log = second.log()?;
            let is_done = log.contains("erased") || log.contains("erasing is tried again");
            Ok(is_done.then_some(log))
        },
    )
    .await?;
    assert!(!asked.contains("erasing is tried again"), "{asked}");
    for member in [&school.fleet, &school.router, &school.vault, &second] {
        let ready = reqwest::get(format!("{}/readyz", member.text("health_url"))).await?;
        assert_eq!(ready.status(), StatusCode::OK);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_wake_a_learner_at_once_make_one_incarnation() -> anyhow::Result<()> {
    let Some(school) = school("one wake").await? else {
        return Ok(());
    };
    let second = school.roles.start("gateway").await?;
    let (here, there) = (
        school.roles.api(&school.gateway)?,
        school.roles.api(&second)?,
    );
    assert_eq!(here.reply("ada", "count").await?, "1");
    for (epoch, next) in [(2, ["2", "3"]), (3, ["4", "5"]), (4, ["6", "7"])] {
        here.sleep("ada").await?;
        let (one, other) =
            tokio::try_join!(here.reply("ada", "count"), there.reply("ada", "count"))?;
        let mut replies = [one, other];
        replies.sort();
        assert_eq!(replies, next);
        assert_eq!(here.learner("ada").await?["epoch"], epoch);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_key_of_its_own_is_refused() -> anyhow::Result<()> {
    let Some(school) = school("keys of their own").await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let other = tempfile::TempDir::new()?;
    for name in [
        "carrel.yaml",
        "s3.credentials",
        "signing.pub",
        "gateway.pub",
    ] {
        std::fs::copy(school.roles.data().join(name), other.path().join(name))?;
    }
    let kek = other.path().join("kek");
    std::fs::write(&kek, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")?;
    std::fs::set_permissions(&kek, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    for (role, status, named) in [
        ("gateway", 6, "keys.gatewayKeyFile: "),
        ("vault", 2, "keys.kekFile: "),
    ] {
        let words = [
            role,
            "--listen",
            "127.0.0.1:0",
            "--health-listen",
            "127.0.0.1:0",
        ];
        let refused = school
            .roles
            .command(&words)?
            .env("CARREL_DATA_DIR", other.path())
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(status), "{role}: {said}");
        assert!(said.contains(named), "{role}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_fleet_is_refused_and_takes_over_when_the_first_is_gone() -> anyhow::Result<()> {
    let Some(mut school) = school("a second fleet").await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let refused = school
        .roles
        .command(&["fleet", "--health-listen", "127.0.0.1:0"])?
        .output()?;
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    school.fleet.kill()?;
    school.fleet = school.roles.start("fleet").await?;
    assert_eq!(api.reply("ada", "count").await?, "2");
    let status = school.fleet.terminate().await?;
    assert!(status.success(), "{status}");
    let asleep = api.learner("ada").await?;
    assert_eq!(asleep["state"], "Asleep", "{asleep}");
    Ok(())
}
