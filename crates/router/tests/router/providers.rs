//! Providers that refuse, lie, stall or are not there.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_core::NanoUsd;
use carrel_core::class::Budget;
use carrel_testkit::provider::{Gate, Provider, Scene, Step, Used, anthropic_whole};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::stage::{PROVIDER_KEY, Stage, chat, header, messages, options};

/// What a client gets of a scene, and what it was charged.
async fn of(scene: Scene) -> (reqwest::StatusCode, String, Value, NanoUsd) {
    let provider = Provider::playing([scene]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("ada", Budget::default(), &[]).await;
    let response = stage
        .call("ada", "/v1/messages", &messages("default", 100, true))
        .await;
    let (status, retry) = (response.status(), header(&response, "x-should-retry"));
    let body = response.json().await.unwrap();
    (status, retry, body, stage.spent("ada").await.cost_nano_usd)
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_fails_in_the_clients_dialect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let stage = Stage::set(options(&url)).await;
    stage.enrol("bea", Budget::default(), &[]).await;
    let response = stage
        .call("bea", "/v1/messages", &messages("default", 100, true))
        .await;
    assert_eq!(response.status(), 502);
    assert!(header(&response, "request-id").starts_with("req_"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("api_error"))
    );
    let response = stage
        .call("bea", "/v1/chat/completions", &chat("default", false))
        .await;
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "upstream_unreachable");
    assert_eq!(stage.spent("bea").await.cost_nano_usd, NanoUsd::ZERO);
}

#[tokio::test]
async fn every_key_of_a_provider_is_used() {
    const CALLS: usize = 64;
    let used = Used {
        input: 2,
        output: 3,
    };
    let scene = || Scene::json(200, &anthropic_whole("hi", used));
    let provider = Provider::playing((0..CALLS).map(|_| scene()))
        .await
        .unwrap();
    let mut options = options(provider.url());
    options.providers[0].keys = vec![PROVIDER_KEY.into(), "sk-provider-other".into()];
    let stage = Stage::set(options).await;
    stage.enrol("dot", Budget::default(), &[]).await;
    for _ in 0..CALLS {
        let body = messages("default", 100, false);
        assert_eq!(stage.call("dot", "/v1/messages", &body).await.status(), 200);
    }
    let keys: BTreeSet<_> = provider
        .recorded()
        .iter()
        .map(|recorded| {
            recorded.headers["authorization"]
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let all = [PROVIDER_KEY, "sk-provider-other"].map(|key| format!("Bearer {key}"));
    assert_eq!(keys, BTreeSet::from(all));
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up_and_may_have_billed_the_call() {
    let scene = Scene::events("").after(Gate::default());
    let provider = Provider::playing([scene]).await.unwrap();
    let mut options = options(provider.url());
    options.timeouts.first_byte = Duration::from_millis(40);
    let stage = Stage::set(options).await;
    stage.enrol("cyd", Budget::default(), &[]).await;
    let response = stage
        .call("cyd", "/v1/messages", &messages("default", 100, true))
        .await;
    assert_eq!(response.status(), 504);
    assert!(stage.spent("cyd").await.cost_nano_usd > NanoUsd(100 * 1000));
}

#[tokio::test]
async fn a_provider_silent_within_its_answer_is_given_up() {
    let scene = Scene::events(": hello\n\n").then(Step::Stall);
    let provider = Provider::playing([scene]).await.unwrap();
    let mut options = options(provider.url());
    options.timeouts.idle = Duration::from_millis(40);
    let stage = Stage::set(options).await;
    stage.enrol("dot", Budget::default(), &[]).await;
    let response = stage
        .call("dot", "/v1/messages", &messages("default", 100, true))
        .await;
    let text = response.text().await.unwrap();
    assert!(
        text.starts_with(": hello\n\nevent: error\n") && text.contains("timeout_error"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refused_key_is_the_operators_and_never_the_learners() {
    for status in [401, 402, 403] {
        let words = format!("Incorrect API key provided: {PROVIDER_KEY}");
        let scene = Scene::json(
            status,
            &json!({"type": "error", "error": {"type": "authentication_error", "message": words}}),
        );
        let (status, retry, body, cost) = of(scene).await;
        assert_eq!(
            (status.as_u16(), retry.as_str(), cost),
            (502, "false", NanoUsd::ZERO)
        );
        assert_eq!(body["error"]["details"]["reason"], "upstream_credentials");
        assert!(!body.to_string().contains(PROVIDER_KEY));
    }
}

#[tokio::test]
async fn a_providers_own_error_passes_without_its_rate_limits() {
    let error =
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}});
    let scene = Scene::json(429, &error)
        .header("retry-after", "7")
        .header("anthropic-ratelimit-unified-status", "rejected");
    let provider = Provider::playing([scene]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("eli", Budget::default(), &[]).await;
    let response = stage
        .call("eli", "/v1/messages", &messages("default", 100, true))
        .await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "retry-after"), "7");
    assert_eq!(header(&response, "anthropic-ratelimit-unified-status"), "");
    assert_eq!(response.json::<Value>().await.unwrap(), error);
    let spent = stage.spent("eli").await;
    assert_eq!((spent.cost_nano_usd, spent.calls), (NanoUsd::ZERO, 0));
}

#[tokio::test]
async fn what_no_client_can_read_becomes_an_error_of_its_dialect() {
    let html = |status| {
        Scene::new(
            status,
            "text/html",
            vec![Step::Send(b"<h1>Bad gateway</h1>".to_vec())],
        )
    };
    let elsewhere =
        Scene::new(307, "text/plain", vec![]).header("location", "https://elsewhere.example/");
    let leak = Scene::json(
        400,
        &json!({"error": {"message": format!("bad key {PROVIDER_KEY}")}}),
    );
    for (scene, expected) in [
        (html(502), 502),
        (html(529), 503),
        (html(200), 502),
        (elsewhere, 502),
        (leak, 502),
    ] {
        let (status, _, body, _) = of(scene).await;
        assert_eq!(status.as_u16(), expected, "{body}");
        assert_eq!(body["type"], "error");
        assert!(!body.to_string().contains(PROVIDER_KEY), "{body}");
    }
}

#[tokio::test]
async fn tokens_are_counted_by_the_provider_or_by_ourselves() {
    let scenes = [
        Scene::json(200, &json!({"input_tokens": 4321})),
        Scene::json(404, &json!({"error": {}})),
    ];
    let provider = Provider::playing(scenes).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("flo", Budget::default(), &[]).await;
    let body =
        json!({"model": "default", "messages": [{"role": "user", "content": "hello there"}]});
    let count = async || {
        let response = stage.call("flo", "/v1/messages/count_tokens", &body).await;
        response.json::<Value>().await.unwrap()["input_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(count().await, 4321);
    assert!((3..100).contains(&count().await));
    assert_eq!(provider.recorded()[0].path, "/v1/messages/count_tokens");
    assert!(provider.recorded()[0].body.get("max_tokens").is_none());
    assert_eq!(stage.spent("flo").await.calls, 0);
}
