//! The provider's own bill against the ledger: never above what was charged, and equal when the answer came to its end.

use std::time::Duration;

use carrel_core::NanoUsd;
use carrel_core::class::Budget;
use carrel_router::{Options, Timeouts};
use carrel_testkit::provider::{Gate, Provider, Scene, Used, anthropic_stream, openai_stream};
use serde_json::{Value, json};

use crate::stage::{Stage, chat, messages, options};

const USED: Used = Used {
    input: 21,
    output: 34,
};
/// What the provider bills for it, wherever the connection broke: it had read all, and went on writing.
const BILL: NanoUsd = NanoUsd(21 * 10 + 34 * 1000);

#[tokio::test]
async fn wherever_a_stream_is_cut_no_less_is_charged_than_the_provider_bills() {
    let mut asked_chat = chat("default", true);
    asked_chat["max_tokens"] = json!(34);
    for (name, path, asked, stream, last) in [
        (
            "ana",
            "/v1/messages",
            messages("default", 34, true),
            anthropic_stream("one two three", USED),
            "message_delta",
        ),
        (
            "oli",
            "/v1/chat/completions",
            asked_chat,
            openai_stream("one two three", USED),
            "completion_tokens",
        ),
    ] {
        let ends: Vec<usize> = stream
            .match_indices("\n\n")
            .map(|(end, mark)| end + mark.len())
            .collect();
        assert!(ends.len() > 4, "{stream}");
        for end in ends {
            let seen = &stream[..end];
            let provider = Provider::playing([Scene::events(seen)]).await.unwrap();
            let stage = Stage::set(options(provider.url())).await;
            stage.enrol(name, Budget::default(), &[]).await;
            stage.call(name, path, &asked).await.bytes().await.unwrap();
            let charged = stage.spent(name).await.cost_nano_usd;
            assert!(charged >= BILL, "{charged} after\n{seen}");
            if seen.contains(last) {
                assert_eq!(charged, BILL, "after\n{seen}");
            }
        }
    }
}

/// What the provider bills for searches side by side: it read all twice, and each search has its own price.
fn bill_of(searches: u64) -> NanoUsd {
    let tokens = NanoUsd(34 * 1000).plus(NanoUsd(10).times(2 * 21 + 1_000 * searches));
    tokens.plus(NanoUsd(10_000_000).times(searches))
}

/// Searches in one round and then an answer, counted as Anthropic does: the last count has the input of both rounds.
fn stream_with(searches: u64) -> String {
    let block = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let usage = |input: u64, output: u64, searches: u64| {
        json!({"input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": output, "server_tool_use": {"web_search_requests": searches}})
    };
    let found = json!({"type": "web_search_result", "url": "https://example.org", "encrypted_content": "Eo8PCi"});
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "msg_3", "content": [], "usage": usage(21, 1, 0)}}),
    ];
    events.extend((0..searches).map(|index| {
        let id = format!("srvtoolu_{index}");
        block(
            index,
            json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": {}}),
        )
    }));
    events.extend((0..searches).map(|index| {
        let id = format!("srvtoolu_{index}");
        block(
            searches + index,
            json!({"type": "web_search_tool_result", "tool_use_id": id, "content": [found]}),
        )
    }));
    events.extend([
        block(
            2 * searches,
            json!({"type": "text", "text": "A prime has two divisors."}),
        ),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
            "usage": usage(2 * 21 + 1_000 * searches, 34, searches)}),
        json!({"type": "message_stop"}),
    ]);
    let frame = |data: &Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap()
        )
    };
    events.iter().map(frame).collect()
}

/// What is charged for a stream that a learner may search the web with.
async fn charged(stream: &str) -> NanoUsd {
    charged_for(Scene::events(stream), Timeouts::default()).await
}

async fn charged_for(scene: Scene, timeouts: Timeouts) -> NanoUsd {
    let provider = Provider::playing([scene]).await.unwrap();
    let options = Options {
        timeouts,
        ..options(provider.url())
    };
    let stage = Stage::set(options).await;
    stage.enrol("sue", Budget::default(), &[]).await;
    let mut asked = messages("default", 34, true);
    asked["tools"] = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]);
    let answer = stage.call("sue", "/v1/messages", &asked).await;
    answer.bytes().await.unwrap();
    stage.spent("sue").await.cost_nano_usd
}

#[tokio::test]
async fn a_search_is_charged_with_what_is_read_again_after_it() {
    for searches in [1, 3] {
        let (stream, bill) = (stream_with(searches), bill_of(searches));
        for (end, mark) in stream.match_indices("\n\n") {
            let seen = &stream[..end + mark.len()];
            let charged = charged(seen).await;
            assert!(charged >= bill, "{charged} after\n{seen}");
            if seen.contains("message_delta") {
                assert_eq!(charged, bill, "after\n{seen}");
            }
        }
    }
}

#[tokio::test]
async fn a_search_that_was_only_offered_is_not_charged_when_the_call_fails() {
    let stream = stream_with(1);
    let start = &stream[..stream.find("event: content_block_start").unwrap()];
    let error =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let failed = charged(&format!("{start}{error}")).await;
    assert_eq!(failed, NanoUsd(21 * 10 + 1000));
}

#[tokio::test]
async fn a_stream_that_never_begins_may_have_been_all_rounds_behind_a_provider_that_passes_it_on() {
    let impatient = Timeouts {
        first_byte: Duration::from_millis(40),
        ..Timeouts::default()
    };
    let silent = charged_for(Scene::events("").after(Gate::default()), impatient).await;
    // Three searches were found in the first round and read in ten more.
    let found = NanoUsd(10).times(10 * 3 * 25_000);
    let most = found.plus(NanoUsd(10_000_000).times(3));
    assert!(silent > most, "{silent}");
    let refused = charged(&"overloaded".repeat(9)).await;
    assert!(refused > most, "a head without an event: {refused}");
    let error = json!({"type": "error", "error": {"type": "overloaded_error"}});
    let refused = charged_for(Scene::json(529, &error), Timeouts::default()).await;
    assert_eq!(refused, NanoUsd::ZERO);
}
