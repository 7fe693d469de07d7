//! What passes, byte by byte, and what it is charged.

use std::time::Duration;

use carrel_core::NanoUsd;
use carrel_core::class::Budget;
use carrel_llm::PriceTable;
use carrel_testkit::provider::{
    Gate, Provider, Scene, Step, Used, anthropic_stream, anthropic_whole, openai_stream,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::stage::{MODEL, PROVIDER_KEY, Stage, chat, header, messages, options};

const USED: Used = Used {
    input: 21,
    output: 34,
};
const COST: NanoUsd = NanoUsd(21 * 10 + 34 * 1000);
const TEXT: &str = "Eine Primzahl — 2, 3, 5 … hat genau zwei Teiler. 素数";

#[tokio::test]
async fn an_anthropic_stream_passes_unchanged_however_it_is_split_and_is_charged_as_reported() {
    let stream = anthropic_stream(TEXT, USED).replace(
        "event: message_delta",
        ": a comment\n\nevent: message_delta",
    );
    for pieces in [1, 7, 64, 100_000] {
        let provider = Provider::playing([Scene::events(&stream).in_pieces_of(pieces)])
            .await
            .unwrap();
        let stage = Stage::set(options(provider.url())).await;
        stage.enrol("ada", Budget::default(), &[]).await;
        let response = stage
            .call(
                "ada",
                "/v1/messages?beta=true",
                &messages("default", 500, true),
            )
            .await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        assert_eq!(header(&response, "carrel-model"), MODEL);
        assert_eq!(header(&response, "carrel-provider"), "house");
        assert_eq!(header(&response, "carrel-attempts"), "1");
        assert!(header(&response, "carrel-request-id").starts_with("req_"));
        assert_eq!(
            response.text().await.unwrap(),
            stream,
            "in pieces of {pieces}"
        );
        let spent = stage.spent("ada").await;
        assert_eq!(
            (spent.calls, spent.input_tokens, spent.output_tokens),
            (1, 21, 34)
        );
        assert_eq!(
            spent.cost_nano_usd, COST,
            "settled before the client saw the end"
        );
        assert_eq!(provider.recorded()[0].path, "/v1/messages?beta=true");
    }
}

#[tokio::test]
async fn an_openai_stream_passes_unchanged_but_for_the_usage_that_was_not_asked_for() {
    let stream = openai_stream(TEXT, USED);
    let (before, usage_and_end) = stream.split_at(
        stream
            .find("data: {\"choices\":[],")
            .or_else(|| stream.rfind("data: {"))
            .unwrap(),
    );
    assert!(usage_and_end.contains("completion_tokens"));
    for asks in [false, true] {
        let provider = Provider::playing([Scene::events(&stream).in_pieces_of(5)])
            .await
            .unwrap();
        let stage = Stage::set(options(provider.url())).await;
        stage.enrol("bob", Budget::default(), &[]).await;
        let mut body = chat("default", true);
        if asks {
            body["stream_options"] = json!({"include_usage": true});
        }
        let response = stage.call("bob", "/v1/chat/completions", &body).await;
        let expected = if asks {
            stream.clone()
        } else {
            format!("{before}data: [DONE]\n\n")
        };
        assert_eq!(response.text().await.unwrap(), expected, "asked: {asks}");
        let recorded = &provider.recorded()[0];
        assert_eq!(recorded.body["stream_options"]["include_usage"], true);
        assert_eq!(recorded.path, "/v1/chat/completions");
        assert_eq!(stage.spent("bob").await.cost_nano_usd, COST);
    }
}

#[tokio::test]
async fn an_answer_that_comes_whole_tells_its_cost() {
    let answer = anthropic_whole(TEXT, USED);
    let provider = Provider::playing([Scene::json(200, &answer)])
        .await
        .unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("cleo", Budget::default(), &[]).await;
    let mut body = messages(MODEL, 900, false);
    body["output_config"] = json!({"effort": "high"});
    let response = stage.call("cleo", "/v1/messages", &body).await;
    assert_eq!(
        header(&response, "carrel-cost-nano-usd"),
        COST.0.to_string()
    );
    assert_eq!(response.json::<Value>().await.unwrap(), answer);
    let recorded = &provider.recorded()[0];
    assert_eq!(recorded.body["model"], "tutor-1");
    assert_eq!(recorded.body["output_config"]["effort"], "high");
    assert_eq!(stage.spent("cleo").await.cost_nano_usd, COST);
}

#[tokio::test]
async fn secrets_stay_on_their_side() {
    let stream = anthropic_stream("hello", USED);
    let provider = Provider::playing([Scene::events(&stream)
        .header("anthropic-ratelimit-tokens-remaining", "12")
        .header("anthropic-organization-id", "org-of-the-operator")
        .header("set-cookie", "__cf=1")])
    .await
    .unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("dan", Budget::default(), &[]).await;
    let token = stage.token("dan", carrel_core::Epoch(1));
    let request = stage
        .client
        .post(format!("{}/v1/messages", stage.url))
        .header("x-api-key", &token);
    let request = request
        .header("anthropic-beta", "effort-2025-11-24")
        .header("cookie", "learner=secret");
    let request = request
        .header("x-forwarded-for", "198.51.100.7")
        .json(&messages("default", 100, true));
    let response = request.send().await.unwrap();
    for name in [
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-organization-id",
        "set-cookie",
    ] {
        assert_eq!(header(&response, name), "", "{name} came through");
    }
    let shown = format!(
        "{:?} {}",
        response.headers().clone(),
        response.text().await.unwrap()
    );
    assert!(!shown.contains(PROVIDER_KEY), "{shown}");
    let recorded = &provider.recorded()[0];
    assert_eq!(
        recorded.headers["authorization"],
        format!("Bearer {PROVIDER_KEY}")
    );
    assert_eq!(recorded.headers["anthropic-beta"], "effort-2025-11-24");
    assert_eq!(recorded.headers["accept-encoding"], "identity");
    for secret in [token.as_str(), "learner=secret", "198.51.100.7"] {
        assert!(
            !recorded.everything().contains(secret),
            "{secret} went to the provider"
        );
    }
}

#[tokio::test]
async fn a_silent_stream_gets_pings_between_events_and_never_within_one() {
    let stream = anthropic_stream("one two", USED);
    // In the middle of an event.
    let middle = stream.find("\"two\"").unwrap();
    let gate = Gate::default();
    let scene = Scene::new(
        200,
        "text/event-stream",
        vec![
            Step::Send(stream[..middle].into()),
            Step::Wait(gate.clone()),
        ],
    )
    .then(Step::Send(stream[middle..].into()));
    let provider = Provider::playing([scene]).await.unwrap();
    let mut options = options(provider.url());
    options.timeouts.ping = Duration::from_millis(15);
    let stage = Stage::set(options).await;
    stage.enrol("eve", Budget::default(), &[]).await;
    let response = stage
        .call("eve", "/v1/messages", &messages("default", 100, true))
        .await;
    let mut body = response.bytes_stream();
    let (mut seen, mut opened) = (String::new(), false);
    while let Some(piece) = body.next().await {
        seen.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        if seen.contains("event: ping") && !opened {
            opened = true;
            gate.open();
        }
    }
    let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    assert!(opened);
    assert_eq!(seen.replace(ping, ""), stream);
}

#[tokio::test]
async fn a_cut_stream_ends_in_an_error_event_and_is_charged_at_its_worst() {
    let stream = anthropic_stream("one two three", USED);
    let middle = stream.find("\"two \"").unwrap();
    let whole_events = &stream[..stream[..middle].rfind("\n\n").unwrap() + 2];
    for last in [Some(Step::Cut), None] {
        let gate = Gate::default();
        let steps = vec![
            Step::Send(stream[..middle].into()),
            Step::Wait(gate.clone()),
        ];
        let scene = Scene::new(200, "text/event-stream", steps);
        let scene = last.into_iter().fold(scene, Scene::then);
        let provider = Provider::playing([scene]).await.unwrap();
        let stage = Stage::set(options(provider.url())).await;
        stage.enrol("fay", Budget::default(), &[]).await;
        let response = stage
            .call("fay", "/v1/messages", &messages("default", 700, true))
            .await;
        let mut body = response.bytes_stream();
        let mut text = String::new();
        while let Some(piece) = body.next().await {
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
            if text == whole_events {
                gate.open();
            }
        }
        let error = text.strip_prefix(whole_events).unwrap();
        assert!(
            error.starts_with("event: error\ndata: {\"type\":\"error\""),
            "{error}"
        );
        let spent = stage.spent("fay").await;
        let worst = NanoUsd(21 * 10 + 700 * 1000);
        assert_eq!(
            spent.cost_nano_usd, worst,
            "known input, output at its limit"
        );
    }
}

#[tokio::test]
async fn an_openai_client_is_told_of_a_cut_in_its_own_shape() {
    let stream = openai_stream("one two", USED);
    let cut = &stream[..stream.find("two").unwrap()];
    let provider = Provider::playing([Scene::events(cut)]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("gus", Budget::default(), &[]).await;
    let mut body = chat("default", true);
    body["max_tokens"] = json!(50);
    let text = stage
        .call("gus", "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_unreachable");
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_pays_what_the_provider_reports() {
    let stream = anthropic_stream("one two three", USED);
    let (head, tail) = stream.split_at(stream.find("event: content_block_stop").unwrap());
    let gate = Gate::default();
    let scene = Scene::new(
        200,
        "text/event-stream",
        vec![Step::Send(head.into()), Step::Wait(gate.clone())],
    )
    .then(Step::Send(tail.into()));
    let provider = Provider::playing([scene]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("hal", Budget::default(), &[]).await;
    let mut body = stage
        .call("hal", "/v1/messages", &messages("default", 700, true))
        .await
        .bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    gate.open();
    stage.settled().await;
    assert_eq!(stage.spent("hal").await.cost_nano_usd, COST);
    assert_eq!(provider.abandoned(), 0, "it was read to its end");
}

#[tokio::test]
async fn a_provider_that_stalls_after_its_client_left_is_given_up_and_charged_at_its_worst() {
    let stream = anthropic_stream("one two three", USED);
    let head = &stream[..stream.find("event: content_block_stop").unwrap()];
    let scene = Scene::new(
        200,
        "text/event-stream",
        vec![Step::Send(head.into()), Step::Stall],
    );
    let provider = Provider::playing([scene]).await.unwrap();
    let mut options = options(provider.url());
    options.timeouts.drain = Duration::from_millis(20);
    let stage = Stage::set(options).await;
    stage.enrol("ian", Budget::default(), &[]).await;
    let mut body = stage
        .call("ian", "/v1/messages", &messages("default", 300, true))
        .await
        .bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    stage.settled().await;
    assert_eq!(
        stage.spent("ian").await.cost_nano_usd,
        NanoUsd(21 * 10 + 300 * 1000)
    );
}

#[tokio::test]
async fn an_error_event_passes_and_only_what_was_seen_is_charged() {
    let stream = anthropic_stream("one two three", USED);
    let head = &stream[..stream.find("event: content_block_stop").unwrap()];
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let told = format!("{head}{error}");
    let provider = Provider::playing([Scene::events(&told)]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("joy", Budget::default(), &[]).await;
    let response = stage
        .call("joy", "/v1/messages", &messages("default", 700, true))
        .await;
    assert_eq!(response.text().await.unwrap(), told);
    let spent = stage.spent("joy").await;
    assert!((1..30).contains(&spent.output_tokens), "{spent:?}");
}

#[tokio::test]
async fn json_where_a_stream_was_asked_for_passes_and_is_metered() {
    let answer = anthropic_whole("whole", USED);
    let provider = Provider::playing([Scene::json(200, &answer)])
        .await
        .unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("kim", Budget::default(), &[]).await;
    let response = stage
        .call("kim", "/v1/messages", &messages("default", 700, true))
        .await;
    assert_eq!(response.json::<Value>().await.unwrap(), answer);
    assert_eq!(stage.spent("kim").await.cost_nano_usd, COST);
}

#[tokio::test]
async fn an_answer_without_a_count_pays_for_its_input_at_the_dearest_kind() {
    let mut answer = anthropic_whole("whole", USED);
    answer.as_object_mut().unwrap().shift_remove("usage");
    let provider = Provider::playing([Scene::json(200, &answer)])
        .await
        .unwrap();
    let mut options = options(provider.url());
    let dearer = r#"{"version": "dearer", "models": {"house/tutor-1": {"input": 10, "output": 1, "cache_write": 1000}}}"#;
    options.prices = options.prices.overlaid(PriceTable::parse(dearer).unwrap());
    let stage = Stage::set(options).await;
    stage.enrol("lea", Budget::default(), &[]).await;
    stage
        .call("lea", "/v1/messages", &messages("default", 700, false))
        .await;
    let spent = stage.spent("lea").await;
    let input = i64::try_from(spent.input_tokens).unwrap();
    assert!(
        input > 0 && spent.cost_nano_usd.0 >= 1000 * input,
        "{spent:?}"
    );
}
