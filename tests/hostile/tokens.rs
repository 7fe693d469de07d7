//! Whose token opens what.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::{Setup, Up, agent, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::stored;
use crate::raw::Raw;
use crate::shell;

const MESSAGE: &[u8] = br#"{"text":"echo stored"}"#;

async fn token(up: &Up, learner: &str, seconds: u32) -> anyhow::Result<String> {
    let body = json!({"ttlSeconds": seconds});
    let answer = up
        .api
        .admin(
            Method::POST,
            &format!("learners/{learner}/tokens"),
            Some(body),
        )
        .await?;
    answer["token"]
        .as_str()
        .map(str::to_owned)
        .context("a token")
}

#[tokio::test]
async fn a_token_opens_its_own_learner_while_it_lives_and_nothing_else() -> anyhow::Result<()> {
    let documents = vec![
        shell::class("shell", &json!({})),
        agent::learner("ada", "shell"),
        agent::learner("bob", "shell"),
    ];
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let Some(up) = Up::start("a_token_opens_its_own", setup).await? else {
        return Ok(());
    };
    let operator = Raw::new(up.text("gateway_url"), up.api.token());
    let (ada, bob) = (
        token(&up, "ada", 3600).await?,
        token(&up, "bob", 3600).await?,
    );
    let (ada, bob) = (operator.with(&ada), operator.with(&bob));
    let before = stored(&up.api).await?;

    let paths = [
        "/v1/learners/ada/messages",
        "/v1/learners/ada/events",
        "/l/ada/",
    ];
    for path in paths {
        bob.ask(&format!("GET {path}"))
            .await?
            .refuses(404, "not_found")?;
    }
    let absent = bob.ask("GET /v1/learners/nobody/messages").await?;
    let foreign = bob.ask("GET /v1/learners/ada/messages").await?;
    let detail = |answer: &crate::raw::Answer| -> anyhow::Result<Value> {
        Ok(serde_json::from_slice::<Value>(&answer.body)?["detail"].clone())
    };
    ensure!(
        detail(&absent)? == detail(&foreign)?,
        "who is there is nobody's business"
    );
    bob.message("ada", MESSAGE)
        .await?
        .refuses(404, "not_found")?;
    bob.ask("POST /v1/learners/ada/wake")
        .await?
        .refuses(404, "not_found")?;
    for path in ["learners", "learners/bob", "usage", "events", "classes"] {
        bob.ask(&format!("GET /admin/v1/{path}"))
            .await?
            .refuses(403, "forbidden")?;
    }
    bob.json("POST /admin/v1/learners/bob/tokens", "", b"{}")
        .await?
        .refuses(403, "forbidden")?;
    bob.ask("DELETE /admin/v1/learners/ada")
        .await?
        .refuses(403, "forbidden")?;

    let good = up.api.token();
    let (short, long) = (&good[..good.len() - 1], format!("{good}a"));
    let upper = good.to_uppercase();
    for bad in [
        "",
        "carrel",
        "null",
        "eyJhbGciOiJub25lIn0.e30.",
        short,
        &long,
        &upper,
        &"a".repeat(9000),
    ] {
        let stranger = operator.with(bad);
        for line in ["GET /admin/v1/learners", "GET /v1/learners/ada/messages"] {
            stranger.ask(line).await?.refuses(401, "unauthenticated")?;
        }
        stranger
            .message("ada", MESSAGE)
            .await?
            .refuses(401, "unauthenticated")?;
    }
    let nobody = format!(
        "GET /v1/learners/ada/messages?token={good}&access_token={good} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: carrel_operator={good}; carrel_learner={good}\r\n\r\n"
    );
    operator
        .send(nobody.as_bytes())
        .await?
        .refuses(401, "unauthenticated")?;
    ensure!(stored(&up.api).await? == before, "something was stored");

    let brief = operator.with(&token(&up, "ada", 1).await?);
    eventually(
        "a token of one second expires",
        Duration::from_secs(10),
        || async {
            let answer = brief.ask("GET /v1/learners/ada/messages").await?;
            Ok((answer.status == 401).then_some(()))
        },
    )
    .await?;
    brief
        .message("ada", MESSAGE)
        .await?
        .refuses(401, "unauthenticated")?;
    ensure!(
        ada.message("ada", MESSAGE).await?.status == 202,
        "its own token opens"
    );
    up.api
        .admin(Method::DELETE, "learners/ada/tokens", None)
        .await?;
    ada.message("ada", MESSAGE)
        .await?
        .refuses(401, "unauthenticated")
}

#[tokio::test]
async fn a_link_signs_in_once_and_its_cookie_changes_nothing_for_other_pages() -> anyhow::Result<()>
{
    let documents = vec![
        shell::class("shell", &json!({})),
        agent::learner("ada", "shell"),
    ];
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let Some(up) = Up::start("a_link_signs_in_once", setup).await? else {
        return Ok(());
    };
    let raw = Raw::new(up.text("gateway_url"), up.api.token());
    let link = up
        .api
        .admin(Method::POST, "learners/ada/links", None)
        .await?;
    let code = link["url"]
        .as_str()
        .and_then(|url| url.split("code=").nth(1))
        .context("a code")?;
    let sign_in = |code: &str| json!({"code": code}).to_string();
    let no_token = |line: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{body}"
        )
    };
    for wrong in ["", "x", &code[1..], &code.to_uppercase()] {
        let request = no_token("POST /v1/sign-in", "", &sign_in(wrong));
        raw.send(request.as_bytes())
            .await?
            .refuses(401, "unauthenticated")?;
    }
    let request = no_token("POST /console/sign-in", "", &sign_in(code));
    raw.send(request.as_bytes())
        .await?
        .refuses(401, "unauthenticated")?;
    let link = up
        .api
        .admin(Method::POST, "learners/ada/links", None)
        .await?;
    let code = link["url"]
        .as_str()
        .and_then(|url| url.split("code=").nth(1))
        .context("a code")?;
    let request = no_token("POST /v1/sign-in", "", &sign_in(code));
    let first = raw.send(request.as_bytes()).await?;
    ensure!(first.status == 200, "{first:?}");
    let cookie = first.header("set-cookie").context("a session")?.to_owned();
    for word in ["HttpOnly", "SameSite=", "Path=/"] {
        ensure!(cookie.contains(word), "{cookie} lacks {word}");
    }
    raw.send(request.as_bytes())
        .await?
        .refuses(401, "unauthenticated")?;
    let session = format!(
        "Cookie: {}\r\nIdempotency-Key: k\r\n",
        cookie.split(';').next().unwrap_or_default()
    );
    let read = no_token("GET /v1/learners/ada/messages", &session, "");
    ensure!(
        raw.send(read.as_bytes()).await?.status == 200,
        "the session reads"
    );
    let before = stored(&up.api).await?;
    let text = String::from_utf8_lossy(MESSAGE);
    let forged = no_token("POST /v1/learners/ada/messages", &session, &text);
    raw.send(forged.as_bytes())
        .await?
        .refuses(403, "forbidden")?;
    ensure!(
        stored(&up.api).await? == before,
        "another page's request was stored"
    );
    let ours = no_token(
        "POST /v1/learners/ada/messages",
        &format!("{session}X-Carrel-Request: 1\r\n"),
        &text,
    );
    ensure!(
        raw.send(ours.as_bytes()).await?.status == 202,
        "our own page's request is taken"
    );
    Ok(())
}
