//! The built-in stand-in through the whole router.

use carrel_core::NanoUsd;
use carrel_core::class::OnExhausted;
use serde_json::{Value, json};

use crate::stage::{Stage, budget, chat, header, messages, options};

#[tokio::test]
async fn the_stand_in_answers_in_both_dialects_is_metered_and_costs_nothing() {
    let stage = Stage::set(options("http://127.0.0.1:9")).await;
    stage
        .enrol("ada", budget(1, OnExhausted::Refuse), &[])
        .await;
    let whole = stage
        .call("ada", "/v1/messages", &messages("background", 900, false))
        .await;
    assert_eq!(header(&whole, "carrel-cost-nano-usd"), "0");
    assert_eq!(
        whole.json::<Value>().await.unwrap()["stop_reason"],
        "end_turn"
    );
    let streamed = stage
        .call("ada", "/v1/messages", &messages("demo/tutor", 900, true))
        .await;
    let text = streamed.text().await.unwrap();
    assert!(
        text.starts_with("event: message_start\n")
            && text.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
        "{text}"
    );
    let mut body = chat("demo/tutor", true);
    body["messages"] = json!([{"role": "user", "content": "My name is Ada"}]);
    body["tools"] =
        json!([{"type": "function", "function": {"name": "remember", "parameters": {}}}]);
    let text = stage
        .call("ada", "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    assert!(
        text.contains("\"finish_reason\":\"tool_calls\"") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    let spent = stage.spent("ada").await;
    assert_eq!((spent.calls, spent.cost_nano_usd), (3, NanoUsd::ZERO));
    assert!(spent.input_tokens > 0 && spent.output_tokens > 0);
}
