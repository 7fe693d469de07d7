//! The provider's own bill against the ledger: never above what was charged, and equal when the answer came to its end.

use carrel_core::NanoUsd;
use carrel_core::class::Budget;
use carrel_testkit::provider::{Provider, Scene, Used, anthropic_stream, openai_stream};
use serde_json::json;

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
