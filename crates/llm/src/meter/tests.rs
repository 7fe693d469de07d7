use serde_json::json;

use super::*;
use crate::settle::{Basis, Worst, settled};
use crate::sse::Splitter;

const WORST: Worst = Worst {
    input_tokens: 900,
    output_tokens: Some(4_000),
};

fn watched(dialect: Dialect, stream: &str) -> (Meter, usize) {
    let (mut splitter, mut meter) = (Splitter::default(), Meter::new(dialect));
    splitter.push(stream.as_bytes());
    let mut bare = 0;
    while let Some(frame) = splitter.next_frame() {
        bare += usize::from(meter.pass(&frame));
    }
    (meter, bare)
}

fn events(list: &[Value]) -> String {
    let frames: Vec<_> = list
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    frames.concat()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"usage": {"input_tokens": 11, "cache_read_input_tokens": 22,
        "cache_creation_input_tokens": 33, "cache_creation": {"ephemeral_1h_input_tokens": 30}, "output_tokens": 1}}})
}

fn text() -> Value {
    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello there"}})
}

#[test]
fn anthropics_counts_are_cumulative_and_zero_input_does_not_overwrite() {
    let stream = events(&[
        start(),
        text(),
        json!({"type": "message_delta", "usage": {"output_tokens": 5, "input_tokens": 0}}),
        json!({"type": "message_delta", "usage": {"output_tokens": 44}}),
        json!({"type": "message_stop"}),
    ]);
    let (meter, _) = watched(Dialect::Anthropic, &stream);
    let expected = Usage {
        input_tokens: 11,
        cache_read_tokens: 22,
        cache_write_tokens: 0,
        cache_write_long_tokens: 30,
        cache_write_untold_tokens: 3,
        output_tokens: 44,
        web_searches: 0,
    };
    assert_eq!(settled(&meter, &WORST), (expected, Basis::Reported));
    let later = json!({"type": "message_delta", "usage": {"output_tokens": 6, "input_tokens": 77}});
    let (meter, _) = watched(Dialect::Anthropic, &events(&[start(), later]));
    assert_eq!(meter.usage().input_tokens, 77);
}

#[test]
fn openais_usage_is_taken_from_its_own_chunk_or_the_last_one() {
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 15}});
    let chunk = |delta: Value, finish: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": null});
    let mut stream = events(&[
        chunk(json!({"role": "assistant", "content": ""}), Value::Null),
        chunk(json!({"content": "Hello"}), Value::Null),
        chunk(json!({}), json!("stop")),
        json!({"choices": [], "usage": usage}),
    ]);
    stream.push_str("data: [DONE]\n\n");
    let (meter, bare) = watched(Dialect::OpenAiChat, &stream);
    let expected = Usage {
        input_tokens: 25,
        cache_read_tokens: 60,
        cache_write_untold_tokens: 15,
        output_tokens: 9,
        ..Usage::default()
    };
    assert_eq!(settled(&meter, &WORST), (expected, Basis::Reported));
    assert_eq!(bare, 1);

    let mut last = chunk(json!({"content": "x"}), json!("stop"));
    last["usage"] = usage;
    let (meter, bare) = watched(Dialect::OpenAiChat, &events(&[last]));
    assert_eq!((meter.usage(), bare), (expected, 0));
}

#[test]
fn a_cut_stream_is_charged_at_its_worst_with_the_input_that_is_known() {
    let (meter, _) = watched(Dialect::Anthropic, &events(&[start(), text()]));
    let (usage, basis) = settled(&meter, &WORST);
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, basis),
        (11, 4_000, Basis::Assumed)
    );
    let (usage, basis) = settled(&Meter::new(Dialect::OpenAiChat), &WORST);
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, basis),
        (900, 4_000, Basis::Assumed)
    );
}

#[test]
fn a_provider_that_fails_is_paid_for_what_passed_by() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    let (meter, _) = watched(
        Dialect::Anthropic,
        &events(&[start(), text(), error.clone()]),
    );
    let (usage, basis) = settled(&meter, &WORST);
    assert_eq!(basis, Basis::Counted);
    assert!((2..20).contains(&usage.output_tokens), "{usage:?}");
    let (meter, _) = watched(Dialect::Anthropic, &events(&[error]));
    assert_eq!(settled(&meter, &WORST), (Usage::default(), Basis::Nothing));
}

#[test]
fn a_whole_answer_is_read_at_once() {
    let body = json!({"content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 3, "output_tokens": 8}});
    let meter = Meter::of_body(Dialect::Anthropic, &body);
    let (usage, basis) = settled(&meter, &WORST);
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, basis),
        (3, 8, Basis::Reported)
    );
    let silent = Meter::of_body(
        Dialect::OpenAiChat,
        &json!({"choices": [{"message": {"content": "hello"}}]}),
    );
    let (usage, basis) = settled(&silent, &WORST);
    assert_eq!((usage.input_tokens, basis), (900, Basis::Counted));
    assert!(usage.output_tokens > 0 && usage.output_tokens < 100);
}

#[test]
fn compaction_passes_are_paid_too() {
    let usage = json!({"input_tokens": 10, "output_tokens": 5, "iterations": [
        {"input_tokens": 90, "output_tokens": 40}, {"input_tokens": 10, "output_tokens": 5}]});
    let usage = Usage::from_anthropic(&usage);
    assert_eq!((usage.input_tokens, usage.output_tokens), (100, 45));
}

#[test]
fn a_report_that_reports_nothing_is_not_taken_for_an_answer_that_cost_nothing() {
    for dialect in [Dialect::Anthropic, Dialect::OpenAiChat] {
        let body = json!({"usage": {}, "content": "Hello there, this was said."});
        let meter = Meter::of_body(dialect, &body);
        let (usage, basis) = settled(&meter, &WORST);
        assert_eq!((usage.input_tokens, basis), (900, Basis::Counted));
        assert!(usage.output_tokens > 4, "{usage:?}");
    }
    let said = json!({"choices": [{"delta": {"content": "Hello there"}}]});
    let stream = events(&[said, json!({"choices": [], "usage": {"prompt_tokens": 12}})])
        + "data: [DONE]\n\n";
    let (meter, _) = watched(Dialect::OpenAiChat, &stream);
    let (usage, basis) = settled(&meter, &WORST);
    assert_eq!((usage.input_tokens, basis), (12, Basis::Counted));
    assert!(usage.output_tokens > 0, "{usage:?}");
}
