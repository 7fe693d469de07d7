//! Who may call, and what hostile clients get.

use std::net::SocketAddr;

use carrel_core::class::Budget;
use carrel_core::{Epoch, NanoUsd};
use carrel_protocol::token::Signer;
use carrel_testkit::provider::{Provider, Scene, Used, anthropic_whole};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stage::{DESK_KEY, MODEL, Stage, chat, header, messages, now, options};

async fn quiet() -> Stage {
    Stage::set(options("http://127.0.0.1:9")).await
}

#[tokio::test]
async fn a_stale_incarnation_is_refused_and_told_not_to_retry() {
    let stage = quiet().await;
    stage.enrol("ada", Budget::default(), &[]).await;
    let body = messages("demo/tutor", 100, false).to_string();
    let newer = stage
        .post("/v1/messages", &stage.token("ada", Epoch(8)), body.clone())
        .await;
    assert_eq!(newer.status(), 200, "{}", newer.text().await.unwrap());
    let older = stage
        .post("/v1/messages", &stage.token("ada", Epoch(7)), body)
        .await;
    assert_eq!(
        (
            older.status().as_u16(),
            header(&older, "x-should-retry").as_str()
        ),
        (409, "false")
    );
    let body: Value = older.json().await.unwrap();
    assert_eq!(body["error"]["type"], "conflict_error");
    assert!(
        body["error"]["message"].as_str().unwrap().contains('8'),
        "the fence is named: {body}"
    );
    let older = stage
        .post(
            "/v1/chat/completions",
            &stage.token("ada", Epoch(7)),
            chat("demo/tutor", true).to_string(),
        )
        .await;
    assert_eq!(older.status(), 409);
    assert_eq!(
        older.json::<Value>().await.unwrap()["error"]["code"],
        "stale_epoch"
    );
}

#[tokio::test]
async fn a_stale_incarnation_counts_no_tokens_and_sees_no_models() {
    let stage = quiet().await;
    stage.enrol("ada", Budget::default(), &[]).await;
    let (old, new) = (stage.token("ada", Epoch(7)), stage.token("ada", Epoch(8)));
    let count = "/v1/messages/count_tokens";
    let body = messages("demo/tutor", 100, false).to_string();
    assert_eq!(stage.post(count, &old, body.clone()).await.status(), 200);
    // What a newer one asks raises the fence, whatever it asks.
    assert_eq!(stage.models(&new).await.status(), 200);
    for older in [
        stage.post(count, &old, body.clone()).await,
        stage.models(&old).await,
    ] {
        assert_eq!(older.status(), 409);
        assert_eq!(header(&older, "x-should-retry"), "false");
        let body = older.text().await.unwrap();
        assert!(body.contains("stale_epoch"), "{body}");
    }
    assert_eq!(stage.post(count, &new, body).await.status(), 200);
}

#[tokio::test]
async fn foreign_tokens_and_none_are_refused_and_told_not_to_retry() {
    let stage = quiet().await;
    stage.enrol("bob", Budget::default(), &[]).await;
    let foreign = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
    let pod = carrel_core::PodUid(uuid::Uuid::from_u128(5));
    let foreign = foreign
        .learner_token(&"bob".parse().unwrap(), Epoch(1), pod, now())
        .unwrap();
    let unknown = stage.token("nobody", Epoch(1));
    for token in [
        foreign.as_str(),
        unknown.as_str(),
        "sk-ant-guess",
        "eyJ.eyJ.x",
        "",
    ] {
        let response = stage
            .post(
                "/v1/messages",
                token,
                messages("default", 9, false).to_string(),
            )
            .await;
        assert_eq!(response.status(), 401, "{token}");
        assert_eq!(header(&response, "x-should-retry"), "false");
        assert_eq!(stage.models(token).await.status(), 401);
    }
}

#[tokio::test]
async fn a_desk_calls_with_a_router_key_and_leaves_no_trace_in_the_ledger() {
    let used = Used {
        input: 5,
        output: 6,
    };
    let provider = Provider::playing([Scene::json(200, &anthropic_whole("hi", used))])
        .await
        .unwrap();
    let stage = Stage::set(options(provider.url())).await;
    let response = stage
        .post(
            "/v1/messages",
            DESK_KEY,
            messages(MODEL, 100, false).to_string(),
        )
        .await;
    assert_eq!(
        header(&response, "carrel-cost-nano-usd"),
        (5 * 10 + 6 * 1000).to_string()
    );
    assert!(!provider.recorded()[0].everything().contains(DESK_KEY));
    let mut registry = Registry::with_prefix("carrel");
    stage.metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "carrel_model_requests_total{provider=\"house\",model=\"tutor-1\",dialect=\"anthropic\",result=\"ok\"} 1",
        "carrel_model_tokens_total{kind=\"output\"} 6",
        "carrel_model_overhead_seconds_count 1",
        "carrel_model_cost_usd_total 0.00000605",
        "carrel_budget_refusals_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn models_are_those_that_the_caller_can_use() {
    let stage = quiet().await;
    stage.enrol("cat", Budget::default(), &["demo/*"]).await;
    let list = async |bearer: &str| {
        let list: Value = stage.models(bearer).await.json().await.unwrap();
        let ids = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(
        list(&stage.token("cat", Epoch(1))).await,
        ["background", "demo/tutor"]
    );
    assert_eq!(
        list(DESK_KEY).await,
        ["background", "default", "demo/tutor", MODEL]
    );
    let response = stage
        .call("cat", "/v1/messages", &messages(MODEL, 9, false))
        .await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn malformed_requests_are_refused_in_the_dialects_shape_and_nothing_is_stored() {
    let mut options = options("http://127.0.0.1:9");
    options.max_body_bytes = 1 << 20;
    let stage = Stage::set(options).await;
    stage.enrol("dee", Budget::default(), &[]).await;
    let token = stage.token("dee", Epoch(1));
    let say = json!([{"role": "user", "content": "hi"}]);
    for (path, body, status) in [
        ("/v1/messages", "{\"model\":".to_owned(), 400),
        (
            "/v1/messages",
            json!({"model": "default", "messages": say}).to_string(),
            400,
        ),
        (
            "/v1/messages",
            json!({"model": "https://evil.example/m", "max_tokens": 1, "messages": say})
                .to_string(),
            400,
        ),
        (
            "/v1/messages",
            json!({"model": "nowhere", "max_tokens": 1, "messages": say}).to_string(),
            404,
        ),
        (
            "/v1/chat/completions",
            json!({"model": "default", "n": 0, "messages": say}).to_string(),
            400,
        ),
        ("/v1/chat/completions", "x".repeat(2 << 20), 413),
        ("/v1/responses", "{}".to_owned(), 404),
    ] {
        let response = stage.post(path, &token, body).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
        assert_eq!(body["type"] == "error", path == "/v1/messages", "{body}");
    }
    assert_eq!(stage.spent("dee").await.cost_nano_usd, NanoUsd::ZERO);
    assert_eq!(stage.spent("dee").await.calls, 0);
}

#[tokio::test]
async fn an_open_loopback_needs_no_key_but_refuses_pages_from_elsewhere() {
    let mut options = options("http://127.0.0.1:9");
    options.callers.open_on_loopback = true;
    let stage = Stage::set(options).await;
    let post = || {
        stage
            .client
            .post(format!("{}/v1/messages", stage.url))
            .json(&messages("demo/tutor", 50, false))
    };
    assert_eq!(post().send().await.unwrap().status(), 200);
    let page = post()
        .header("origin", "https://elsewhere.example")
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 401);
}

#[tokio::test]
async fn a_header_that_is_no_http_is_refused_before_anything_happens() {
    let stage = quiet().await;
    let address: SocketAddr = stage.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\0b\r\ncontent-length: 2\r\n\r\n{}";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
