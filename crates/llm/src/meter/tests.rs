use carrel_core::NanoUsd;
use serde_json::json;

use super::*;
use crate::estimate::Bound;
use crate::price::Price;
use crate::settle::{Basis, Charge, Worst, charge};
use crate::sse::Splitter;

const WORST: Worst = Worst {
    bound: Bound {
        input_tokens: 900,
        web_searches: 0,
        rereads: 0,
        long_cache: false,
        prompt_tokens: 900,
        found_tokens: 0,
        most_found_tokens: 0,
    },
    output_tokens: 4_000,
    thinking_tokens: 0,
    thinks_unseen: false,
    begins_at_once: false,
};
/// Three searches at most.
const WORST_WITH_SEARCH: Worst = Worst {
    bound: Bound {
        input_tokens: 900 + 10 * (900 + 3 * 500),
        web_searches: 3,
        rereads: 10,
        found_tokens: 3 * 500,
        most_found_tokens: 500,
        ..WORST.bound
    },
    ..WORST
};
/// Input 1, output 10, an input of 100 at the dearest.
const PRICE: Price = Price {
    input: NanoUsd(1),
    output: NanoUsd(10),
    cache_write: Some(NanoUsd(100)),
    ..Price::FREE
};
/// One search.
const SEARCH: i64 = 10_000_000;

fn settled(meter: &Meter) -> (Usage, Basis) {
    let Charge { usage, basis, .. } = charge(meter, &WORST, &PRICE);
    (usage, basis)
}

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
        cache_write_tokens: 3,
        cache_write_long_tokens: 30,
        cache_write_untold_tokens: 0,
        output_tokens: 44,
        web_searches: 0,
    };
    assert_eq!(settled(&meter), (expected, Basis::Reported));
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
        cache_write_tokens: 15,
        output_tokens: 9,
        ..Usage::default()
    };
    assert_eq!(settled(&meter), (expected, Basis::Reported));
    assert_eq!(bare, 1);

    let mut last = chunk(json!({"content": "x"}), json!("stop"));
    last["usage"] = usage;
    let (meter, bare) = watched(Dialect::OpenAiChat, &events(&[last]));
    assert_eq!(settled(&meter), (expected, Basis::Reported));
    assert_eq!(bare, 0);
}

#[test]
fn a_cut_stream_is_charged_at_its_worst_with_the_input_that_is_known() {
    let (meter, _) = watched(Dialect::Anthropic, &events(&[start(), text()]));
    let (usage, basis) = settled(&meter);
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, basis),
        (11, 4_000, Basis::Assumed)
    );
    let (usage, basis) = settled(&Meter::new(Dialect::OpenAiChat));
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
    let (usage, basis) = settled(&meter);
    assert_eq!(basis, Basis::Counted);
    assert!((2..20).contains(&usage.output_tokens), "{usage:?}");
    let (meter, _) = watched(Dialect::Anthropic, &events(&[error]));
    assert_eq!(settled(&meter), (Usage::default(), Basis::Nothing));
}

#[test]
fn a_whole_answer_is_read_at_once() {
    let body = json!({"content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 3, "output_tokens": 8}});
    let meter = Meter::of_body(Dialect::Anthropic, &body);
    let (usage, basis) = settled(&meter);
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, basis),
        (3, 8, Basis::Reported)
    );
    let silent = Meter::of_body(
        Dialect::OpenAiChat,
        &json!({"choices": [{"message": {"content": "hello"}}]}),
    );
    let (usage, basis) = settled(&silent);
    assert_eq!((usage.input_tokens, basis), (900, Basis::Counted));
    assert!((1..20).contains(&usage.output_tokens), "{usage:?}");
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
        let text = "Hello there, this was said.";
        let body = json!({"usage": {}, "content": [{"type": "text", "text": text}],
            "choices": [{"message": {"content": text}}]});
        let (usage, on) = settled(&Meter::of_body(dialect, &body));
        assert_eq!((usage.input_tokens, on), (900, Basis::Counted));
        assert!((5..40).contains(&usage.output_tokens), "{usage:?}");
    }
    let said = json!({"choices": [{"delta": {"content": "Hello there"}}]});
    let stream = events(&[said, json!({"choices": [], "usage": {"prompt_tokens": 12}})])
        + "data: [DONE]\n\n";
    let (meter, _) = watched(Dialect::OpenAiChat, &stream);
    let (usage, basis) = settled(&meter);
    assert_eq!((usage.input_tokens, basis), (12, Basis::Counted));
    assert!((2..20).contains(&usage.output_tokens), "{usage:?}");
}

#[test]
fn what_a_model_thought_in_secret_is_assumed_and_not_counted() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error"}});
    let block =
        |block: Value| json!({"type": "content_block_start", "index": 0, "content_block": block});
    for thinking in [
        json!({"type": "thinking", "thinking": "", "signature": ""}),
        json!({"type": "redacted_thinking", "data": "EmwK"}),
    ] {
        let stream = events(&[start(), block(thinking), text(), error.clone()]);
        let (usage, basis) = settled(&watched(Dialect::Anthropic, &stream).0);
        assert_eq!((usage.output_tokens, basis), (4_000, Basis::Assumed));
    }
}

#[test]
fn no_more_is_assumed_than_was_set_aside_for_thinking() {
    let thinking = json!({"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}});
    let error = json!({"type": "error", "error": {"type": "overloaded_error"}});
    let with_budget = |thinking_tokens, bound: Bound, seen: &[Value]| {
        let worst = Worst {
            bound,
            thinking_tokens,
            ..WORST
        };
        let meter = watched(Dialect::Anthropic, &events(seen)).0;
        let seen = meter.seen_output_tokens();
        (charge(&meter, &worst, &PRICE).usage.output_tokens, seen)
    };
    let failed = [start(), thinking.clone(), text(), error.clone()];
    let (output, seen) = with_budget(1_500, WORST.bound, &failed);
    assert_eq!(output, 1_500 + seen);
    let (output, _) = with_budget(3_999, WORST.bound, &failed);
    assert_eq!(output, 4_000, "never above the limit");
    let (output, _) = with_budget(1_500, WORST.bound, &failed[..3]);
    assert_eq!(output, 4_000, "a stream that was cut goes on");
    let searched = [start(), thinking, use_of("web_search"), found(), error];
    let (output, seen) = with_budget(1_000, WORST_WITH_SEARCH.bound, &searched);
    assert_eq!(
        output,
        3_000 + seen,
        "it thinks again each time it is asked"
    );
}

#[test]
fn in_openais_dialect_hidden_output_is_assumed_where_there_is_a_sign_of_it() {
    let worst = Worst {
        thinks_unseen: true,
        ..WORST
    };
    let chunk = |delta: &Value| json!({"choices": [{"delta": delta}]});
    let error = json!({"error": {"message": "busy"}});
    for (delta, is_sign) in [
        (json!({"content": "Hello there"}), false),
        (
            json!({"content": "Hello", "reasoning_content": null, "reasoning": "", "reasoning_details": []}),
            false,
        ),
        (
            json!({"content": "Hello", "reasoning_content": "First"}),
            true,
        ),
        (
            json!({"content": "Hello", "reasoning_details": [{"type": "reasoning.encrypted"}]}),
            true,
        ),
    ] {
        let stream = events(&[chunk(&delta), error.clone()]);
        let (meter, _) = watched(Dialect::OpenAiChat, &stream);
        let (usage, basis) = settled(&meter);
        if is_sign {
            assert_eq!(
                (usage.output_tokens, basis),
                (4_000, Basis::Assumed),
                "{delta}"
            );
        } else {
            assert_eq!(basis, Basis::Counted, "{delta}");
            assert!((2..30).contains(&usage.output_tokens), "{delta}: {usage:?}");
        }
        assert_eq!(charge(&meter, &worst, &PRICE).usage.output_tokens, 4_000);
    }
    let mut counted = chunk(&json!({"content": "Hello"}));
    counted["usage"] = json!({"prompt_tokens": 7, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}});
    let stream = events(&[counted, error]);
    let (usage, _) = settled(&watched(Dialect::OpenAiChat, &stream).0);
    assert_eq!(usage.output_tokens, 4_000);
}

#[test]
fn a_count_that_runs_is_no_last_word_when_the_stream_is_cut() {
    let delta = |output: u64, stop_reason: Value| {
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason},
        "usage": {"input_tokens": 11, "output_tokens": output}})
    };
    let early = |stop_reason: Value| {
        let block =
            json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}});
        let seen = events(&[start(), delta(5, stop_reason), block]);
        settled(&watched(Dialect::Anthropic, &seen).0)
    };
    for stop_reason in [Value::Null, json!("pause_turn")] {
        let (usage, basis) = early(stop_reason);
        assert_eq!((usage.output_tokens, basis), (4_000, Basis::Assumed));
    }
    let between = events(&[start(), delta(5, Value::Null)]);
    let (_, basis) = settled(&watched(Dialect::Anthropic, &between).0);
    assert_eq!(basis, Basis::Assumed);

    let chunk = |output: u64, finish: Value| {
        json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 7, "completion_tokens": output}})
    };
    let mut chunks = vec![chunk(1, Value::Null), chunk(2, Value::Null)];
    let (usage, basis) = settled(&watched(Dialect::OpenAiChat, &events(&chunks)).0);
    assert_eq!((usage.output_tokens, basis), (4_000, Basis::Assumed));
    chunks.push(chunk(3, json!("stop")));
    let (usage, basis) = settled(&watched(Dialect::OpenAiChat, &events(&chunks)).0);
    assert_eq!((usage.output_tokens, basis), (3, Basis::Reported));
}

fn use_of(name: &str) -> Value {
    json!({"type": "content_block_start", "index": 1, "content_block":
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": name, "input": {}}})
}

fn found() -> Value {
    let found = json!({"type": "web_search_result", "encrypted_content": "x1".repeat(9_000)});
    json!({"type": "content_block_start", "index": 2, "content_block":
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}})
}

/// What is charged for input that may have been read so often again, and for output.
fn at_worst(input: i64, rereads: i64, output: i64, searches: i64) -> NanoUsd {
    NanoUsd(100 * input + (10 + 100 * rereads) * output + searches * SEARCH)
}

#[test]
fn tools_that_a_provider_runs_are_charged_as_often_as_they_were_used() {
    let charged = |seen: &[Value]| {
        let (meter, _) = watched(Dialect::Anthropic, &events(seen));
        charge(&meter, &WORST_WITH_SEARCH, &PRICE)
    };
    let error = json!({"type": "error", "error": {"type": "overloaded_error"}});
    let failed = charged(&[start(), text(), error.clone()]);
    assert_eq!(failed.usage.input_tokens, 11, "merely offered");
    assert!(failed.cost < NanoUsd(10_000), "{failed:?}");

    let cut = charged(&[start(), text()]);
    assert_eq!(
        cut.cost,
        at_worst(900 + (900 + 3 * 500), 1, 4_000, 3),
        "a round may have begun, with all searches side by side"
    );
    assert_eq!(cut.usage.web_searches, 3);
    let searched = [start(), use_of("web_search"), found(), text()];
    let cut = charged(&searched);
    assert_eq!(cut.cost, at_worst(900 + 2 * (900 + 3 * 500), 2, 4_000, 3));
    let failed = charged(&[start(), use_of("web_search"), error.clone()]);
    assert_eq!(failed.usage.web_searches, 3, "a round was open");
    let twice = 900 + 2 * (900 + 2 * 500);

    let failed = charged(&[start(), use_of("web_search"), found(), error]);
    assert!(
        failed.usage.output_tokens < 100,
        "what was found is input: {failed:?}"
    );
    assert_eq!(failed.basis, Basis::Counted);
    let output = i64::try_from(failed.usage.output_tokens).unwrap();
    assert_eq!(failed.cost, at_worst(twice, 2, output, 2));

    let many: Vec<_> = std::iter::once(start())
        .chain(std::iter::repeat_with(|| use_of("web_search")).take(40))
        .collect();
    let bound = i64::try_from(WORST_WITH_SEARCH.bound.input_tokens).unwrap();
    assert_eq!(
        charged(&many).cost,
        at_worst(bound, 10, 4_000, 3),
        "never above the bound"
    );
}

#[test]
fn an_answer_that_never_began_is_charged_all_rounds_unless_it_would_have_begun_at_once() {
    let charged = |begins_at_once, seen: &[Value]| {
        let worst = Worst {
            begins_at_once,
            ..WORST_WITH_SEARCH
        };
        let (meter, _) = watched(Dialect::Anthropic, &events(seen));
        charge(&meter, &worst, &PRICE).cost
    };
    let bound = i64::try_from(WORST_WITH_SEARCH.bound.input_tokens).unwrap();
    let one_round = at_worst(900 + (900 + 3 * 500), 1, 4_000, 3);
    let ping = json!({"type": "ping"});
    for seen in [&[][..], &[ping]] {
        assert_eq!(charged(false, seen), at_worst(bound, 10, 4_000, 3));
        assert_eq!(charged(true, seen), one_round);
    }
    assert_eq!(charged(false, &[start()]), one_round);
}

#[test]
fn what_was_read_before_a_tool_of_the_providers_ran_is_not_taken_for_all() {
    let stop = |usage: Value| json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage});
    let last = json!({"type": "message_stop"});
    let told = |usage: Value| {
        let seen = events(&[
            start(),
            use_of("web_search"),
            found(),
            text(),
            stop(usage),
            last.clone(),
        ]);
        let (meter, _) = watched(Dialect::Anthropic, &seen);
        charge(&meter, &WORST_WITH_SEARCH, &PRICE)
    };
    let searched = json!({"web_search_requests": 1});
    let whole = told(json!({"input_tokens": 2_000, "cache_read_input_tokens": 44,
        "cache_creation_input_tokens": 33, "output_tokens": 60, "server_tool_use": searched}));
    assert_eq!(
        (whole.basis, whole.usage.input_tokens),
        (Basis::Reported, 2_000)
    );
    let without_input = told(json!({"output_tokens": 60, "server_tool_use": searched}));
    assert!(without_input.cost > whole.cost, "{without_input:?}");
    assert_eq!(without_input.usage.input_tokens, 900 + 2 * (900 + 2 * 500));
}
