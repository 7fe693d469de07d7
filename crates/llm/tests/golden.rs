//! Every error and refusal, in both dialects, as clients see them.

use carrel_core::NanoUsd;
use carrel_llm::budget::{Exhausted, Period, headers_of_success};
use carrel_llm::{Dialect, Failure, Kind};
use jiff::Timestamp;
use serde_json::json;
use strum::IntoEnumIterator;

#[test]
fn each_failure_has_its_status_and_shape() {
    let mut all = Vec::new();
    for kind in Kind::iter() {
        let failure = Failure::new(kind, format!("words about {kind}"));
        for dialect in Dialect::iter() {
            all.push(json!({
                "kind": kind.to_string(), "dialect": dialect, "status": kind.status(),
                "x-should-retry": kind.should_retry(), "body": failure.body(dialect, "req_1"),
            }));
        }
    }
    insta::assert_yaml_snapshot!(all);
}

#[test]
fn a_refusal_of_the_budget_is_the_one_that_clients_show_and_do_not_retry() {
    let now: Timestamp = "2026-11-20T22:30:00Z".parse().unwrap();
    let exhausted = Exhausted {
        period: Period::Daily,
        limit: NanoUsd(500_000_000),
        resets_at: "2026-11-21T00:00:00Z".parse().unwrap(),
    };
    insta::assert_yaml_snapshot!(json!({
        "headers": exhausted.headers(now),
        "anthropic": exhausted.failure().body(Dialect::Anthropic, "req_2"),
        "openai": exhausted.failure().body(Dialect::OpenAiChat, "req_2"),
    }));
}

#[test]
fn a_success_near_the_end_of_a_budget_warns() {
    let of = |used| headers_of_success(NanoUsd(used), NanoUsd(1_000));
    insta::assert_yaml_snapshot!(json!([of(0), of(749), of(750), of(951), of(1_200)]));
}

#[test]
fn a_failure_in_a_stream_is_an_event_of_its_dialect() {
    let failure = Failure::new(Kind::UpstreamUnreachable, "the provider broke off");
    let events: Vec<_> = Dialect::iter()
        .map(|dialect| failure.event(dialect, "req_3"))
        .collect();
    insta::assert_yaml_snapshot!(events);
}
