//! Requests that mean harm, or make no sense: each is refused in one form, and nothing of it is stored.

use std::time::Duration;

use anyhow::ensure;
use carrel_tests::{Setup, Up, agent};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::answer::stored;
use crate::raw::{Raw, read};
use crate::shell;

async fn server(test: &str) -> anyhow::Result<Option<(Up, Raw)>> {
    let documents = vec![
        shell::class("shell", &json!({})),
        agent::learner("ada", "shell"),
    ];
    let setup = Setup {
        documents,
        settings: Some(json!({"limits": {"messageBytes": "64Ki", "attachmentBytes": "64Ki"}})),
        ..Setup::default()
    };
    let up = Up::start(test, setup).await?;
    Ok(up.map(|up| {
        let raw = Raw::new(up.text("gateway_url"), up.api.token());
        (up, raw)
    }))
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused() -> anyhow::Result<()> {
    let Some((up, raw)) = server("a_body_that_is_not").await? else {
        return Ok(());
    };
    let before = stored(&up.api).await?;
    let nested = "[".repeat(100_000);
    let attached = |name: &str, kind: &str, data: &str| {
        json!({"text": "a", "attachments": [{"name": name, "media_type": kind, "data": data}]})
            .to_string()
    };
    let many = json!({"text": "a", "attachments": vec![json!({"name": "a", "media_type": "a/a", "data": ""}); 33]});
    let bodies = [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        r#"{"text":1}"#.to_owned(),
        r#"{"text":null}"#.to_owned(),
        r#"{"text":"a","text":"b"}"#.to_owned(),
        r#"{"text":"a","extra":1}"#.to_owned(),
        r#"{"text":"a","__proto__":{"x":1}}"#.to_owned(),
        r#"{"text":"a"}{"text":"b"}"#.to_owned(),
        r#"{"text":"\ud800"}"#.to_owned(),
        r#"{"text":"nul \u0000"}"#.to_owned(),
        r#"{"text":" \n\t"}"#.to_owned(),
        r#"{"attachments":[]}"#.to_owned(),
        format!(r#"{{"text":{nested}}}"#),
        attached("../up", "text/plain", "aGk="),
        attached("a\r\nSet-Cookie: a=b", "text/plain", "aGk="),
        attached("a", "text/html\r\nX-Evil: 1", "aGk="),
        attached("a", "text", "aGk="),
        attached("a", "text/plain", "!!"),
        many.to_string(),
    ];
    for body in &bodies {
        let answer = raw.message("ada", body.as_bytes()).await?;
        let shown: String = body.chars().take(60).collect();
        answer
            .refuses(400, "invalid_body")
            .map_err(|error| error.context(shown))?;
    }
    raw.message("ada", b"{\"text\":\"\xff\xfe\"}")
        .await?
        .refuses(400, "invalid_body")?;
    let line = "POST /v1/learners/ada/messages";
    let text = br#"{"text":"echo a"}"#;
    raw.json(line, "", text)
        .await?
        .refuses(400, "invalid_request")?;
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(256));
    raw.json(line, &long, text)
        .await?
        .refuses(400, "invalid_request")?;
    raw.json(line, "Idempotency-Key: \u{fc}\r\n", text)
        .await?
        .refuses(400, "invalid_request")?;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let more = format!(
            "Content-Type: {kind}\r\nContent-Length: {}\r\nIdempotency-Key: k\r\n",
            text.len()
        );
        let request = [raw.head(line, &more).as_bytes(), text].concat();
        raw.send(&request).await?.refuses(400, "invalid_body")?;
    }
    for (path, body) in [
        ("learners", r#"{"id":"../ada"}"#),
        ("learners", r#"{"id":"ADA"}"#),
        ("learners", r#"{"id":"b","class":"no such"}"#),
        ("learners", r#"{"id":"b","owner":"me"}"#),
        ("learners/ada/tokens", r#"{"ttlSeconds":-1}"#),
        ("learners/ada/tokens", r#"{"ttlSeconds":1e99}"#),
        ("learners/ada/restore", r#"{"snapshot_id":"latest"}"#),
    ] {
        let answer = raw
            .json(&format!("POST /admin/v1/{path}"), "", body.as_bytes())
            .await?;
        answer
            .refuses(400, "invalid_body")
            .map_err(|error| error.context(body))?;
    }
    ensure!(stored(&up.api).await? == before, "something was stored");
    ensure!(up.api.reply("ada", "echo fine").await? == "fine\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_too_large_or_too_slow_is_given_up() -> anyhow::Result<()> {
    let Some((up, raw)) = server("a_body_too_large").await? else {
        return Ok(());
    };
    let before = stored(&up.api).await?;
    let long = json!({"text": "a".repeat(65 * 1024)}).to_string();
    raw.message("ada", long.as_bytes())
        .await?
        .refuses(413, "body_too_large")?;
    let data = "QUFB".repeat(22 * 1024);
    let file =
        json!({"text": "", "attachments": [{"name": "a", "media_type": "a/a", "data": data}]});
    raw.message("ada", file.to_string().as_bytes())
        .await?
        .refuses(413, "body_too_large")?;
    let line = "POST /v1/learners/ada/messages";
    let json = "Content-Type: application/json\r\nIdempotency-Key: k\r\n";
    // It is refused for what it says, before it comes.
    let huge = raw.head(line, &format!("{json}Content-Length: 99999999999\r\n"));
    raw.send(huge.as_bytes())
        .await?
        .refuses(413, "body_too_large")?;
    let mut endless = raw.head(line, &format!("{json}Transfer-Encoding: chunked\r\n"));
    endless += &format!("10000\r\n{}\r\n", " ".repeat(65536)).repeat(16);
    raw.send(endless.as_bytes())
        .await?
        .refuses(413, "body_too_large")?;

    let started = async |bytes: String| -> anyhow::Result<tokio::net::TcpStream> {
        let mut stream = raw.connect().await?;
        stream.write_all(bytes.as_bytes()).await?;
        Ok(stream)
    };
    let stopped = raw.head(line, &format!("{json}Content-Length: 30\r\n")) + r#"{"text":"#;
    let mut stuck = started(stopped.clone()).await?;
    let mut dripping = started(raw.head(line, &format!("{json}Content-Length: 900\r\n"))).await?;
    let mut silent = started("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned()).await?;
    let drip = async {
        let (mut half, mut writer) = dripping.split();
        let drops = async {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        };
        let answer = async {
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut half, &mut bytes).await?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        tokio::select! { () = drops => anyhow::bail!("it was cut off without a word"), answer = answer => answer }
    };
    let (stuck, dripped, silent) = tokio::join!(read(&mut stuck), drip, read(&mut silent));
    stuck?.refuses(408, "request_timeout")?;
    let dripped = dripped?;
    ensure!(
        dripped.starts_with("HTTP/1.1 408") && dripped.contains("request_timeout"),
        "{dripped}"
    );
    // Headers that never end are no request yet: it may close without a word.
    ensure!(
        silent.map_or(true, |answer| answer.status == 408),
        "a slow header was waited for"
    );
    ensure!(stored(&up.api).await? == before, "something was stored");
    ensure!(up.api.reply("ada", "echo fine").await? == "fine\n");
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_none_leads_nowhere() -> anyhow::Result<()> {
    let Some((up, raw)) = server("an_id_that_is_none").await? else {
        return Ok(());
    };
    let before = stored(&up.api).await?;
    let (long, longer) = ("a".repeat(64), "a".repeat(60_000));
    let ids = [
        "..",
        ".",
        "..%2f..%2fadmin",
        "%2e%2e",
        "..%5c..",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "ADA",
        "aDa",
        "-ada",
        "ada-",
        "ada_",
        "ada%00",
        "ada%0a",
        "ada%0d%0aX-Evil:%201",
        "ada%20",
        "%20ada",
        "ada;a=b",
        "ada%2f",
        "%c3%a4da",
        "%ff%fe",
        "ad%C4%B1",
        "a%cc%88",
        "%E2%80%AEada",
        "*",
        "%25",
        "%",
        "%zz",
        "'%20or%20'1'='1",
        "${ada}",
        "{id}",
        &long,
        &longer,
    ];
    for id in ids {
        for line in [
            format!("GET /v1/learners/{id}/messages"),
            format!("GET /v1/learners/{id}/events"),
            format!("GET /v1/learners/ada/turns/{id}"),
            format!("POST /v1/learners/ada/turns/{id}/stop"),
            format!("GET /admin/v1/learners/{id}"),
            format!("DELETE /admin/v1/learners/{id}"),
            format!("GET /admin/v1/classes/{id}"),
        ] {
            let answer = raw.ask(&line).await?;
            let shown: String = line.chars().take(80).collect();
            // A path that is none at all is refused as a request.
            let known = if answer.status == 400 {
                (400, "invalid_request")
            } else {
                (404, "not_found")
            };
            answer
                .refuses(known.0, known.1)
                .map_err(|error| error.context(shown))?;
            ensure!(
                answer.header("x-evil").is_none(),
                "a header came through: {answer:?}"
            );
        }
    }
    for path in [
        "/../etc/passwd",
        "/assets/../../Cargo.toml",
        "/assets/%2e%2e/chat.html",
        "/assets//etc/passwd",
        "//",
        "/v1",
        "/admin/v1",
        "/admin",
        "/.git/config",
        "/metrics/../admin",
    ] {
        raw.ask(&format!("GET {path}"))
            .await?
            .refuses(404, "not_found")
            .map_err(|error| error.context(path))?;
    }
    ensure!(stored(&up.api).await? == before, "something was stored");
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_malformed_injects_nothing() -> anyhow::Result<()> {
    let Some((up, raw)) = server("a_request_that_is_malformed").await? else {
        return Ok(());
    };
    let before = stored(&up.api).await?;
    for line in [
        "PUT /v1/learners/ada/messages",
        "DELETE /v1/learners/ada/messages",
        "PATCH /v1/learners/ada/events",
        "GET /v1/learners/ada/wake",
        "POST /openapi.json",
        "TRACE /v1/learners/ada/messages",
        "BREW /admin/v1/learners",
        "PUT /admin/v1/learners/ada",
        "GET /v1/sign-in",
    ] {
        let answer = raw.ask(line).await?;
        answer
            .refuses(405, "method_not_allowed")
            .map_err(|error| error.context(line))?;
        ensure!(answer.header("allow").is_some(), "{line}: {answer:?}");
    }
    for id in [
        "a%0d%0aSet-Cookie:%20a=b",
        "a\tb",
        "<script>",
        &"i".repeat(65),
    ] {
        let request = raw.head(
            "GET /v1/learners/ada/turns/x",
            &format!("X-Request-Id: {id}\r\n"),
        );
        let answer = raw.send(request.as_bytes()).await?;
        answer.refuses(404, "not_found")?;
        ensure!(answer.header("x-request-id") != Some(id), "{answer:?}");
    }
    let text = r#"{"text":"echo smuggled"}"#;
    let json = "Content-Type: application/json\r\nIdempotency-Key: k\r\n";
    let (line, length) = ("POST /v1/learners/ada/messages", text.len());
    let malformed = [
        format!(
            "{}{text}",
            raw.head(
                line,
                &format!("{json}Content-Length: {length}\r\nContent-Length: 5\r\n")
            )
        ),
        format!(
            "{}0\r\n\r\n{text}",
            raw.head(line, &format!("{json}Transfer-Encoding: xchunked\r\n"))
        ),
        format!(
            "{}zz\r\n{text}\r\n0\r\n\r\n",
            raw.head(line, &format!("{json}Transfer-Encoding: chunked\r\n"))
        ),
        format!(
            "{}{text}",
            raw.head(line, &format!("{json}Content-Length: +{length}\r\n"))
        ),
        format!(
            "{}{text}",
            raw.head(line, &format!("{json}Content-Length : {length}\r\n"))
        ),
        format!(
            "{}{text}",
            raw.head(
                line,
                &format!("{json}X-Bad: a\0b\r\nContent-Length: {length}\r\n")
            )
        ),
        format!(
            "{}{text}",
            raw.head(
                line,
                &format!("{json}X-Fold: a\r\n b\r\nContent-Length: {length}\r\n")
            )
        ),
        raw.head(
            "GET /v1/learners/ada/messages",
            &format!("X-Long: {}\r\n", "a".repeat(400_000)),
        ),
        raw.head(
            "GET /v1/learners/ada/messages",
            &"X-Many: 1\r\n".repeat(200),
        ),
        "GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for request in malformed {
        let shown: String = request.chars().take(300).collect();
        // What cannot be read as HTTP is refused before any of our words can be; it may be cut off.
        if let Ok(answer) = raw.send(request.as_bytes()).await {
            ensure!((400..500).contains(&answer.status), "{shown}: {answer:?}");
            ensure!(answer.header("x-evil").is_none(), "{shown}: {answer:?}");
        }
    }
    ensure!(stored(&up.api).await? == before, "something was stored");
    Ok(())
}

#[tokio::test]
async fn a_header_or_query_that_makes_no_sense_is_refused() -> anyhow::Result<()> {
    let Some((up, raw)) = server("a_header_or_query").await? else {
        return Ok(());
    };
    for (name, value) in [
        ("Last-Event-ID", "1.2.3"),
        ("Last-Event-ID", "-1"),
        ("Last-Event-ID", "9e9.1"),
    ] {
        let request = raw.head(
            "GET /v1/learners/ada/events",
            &format!("{name}: {value}\r\n"),
        );
        raw.send(request.as_bytes())
            .await?
            .refuses(400, "invalid_request")?;
    }
    for query in [
        "limit=0x10",
        "limit=-1",
        "limit=99999999999",
        "before=x",
        "surprise=1",
        "limit=1&limit=2",
    ] {
        let answer = raw
            .ask(&format!("GET /v1/learners/ada/messages?{query}"))
            .await?;
        answer
            .refuses(400, "invalid_request")
            .map_err(|error| error.context(query))?;
    }
    ensure!(up.api.reply("ada", "echo fine").await? == "fine\n");
    Ok(())
}
