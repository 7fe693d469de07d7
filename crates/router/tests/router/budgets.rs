//! Budgets at their edge: lowered, degraded, refused, never over.

use carrel_core::class::{Budget, OnExhausted};
use carrel_core::money::Usd;
use carrel_core::{Epoch, NanoUsd, ReservationId};
use carrel_store::Ledger as _;
use carrel_store::ledger::NewReservation;
use carrel_testkit::provider::{
    Provider, Recorded, Scene, Used, anthropic_stream, anthropic_whole, openai_stream,
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{MODEL, Stage, budget, chat, header, learner, messages, now, options};

/// A provider that always uses every token of output that it is allowed, and bills as much input as it is sent bytes
/// of text at most.
fn greedy(recorded: &Recorded) -> Option<Scene> {
    let body = &recorded.body;
    let limit = body["max_tokens"]
        .as_u64()
        .or_else(|| body["max_completion_tokens"].as_u64())?;
    let used = Used {
        input: 24,
        output: limit,
    };
    Some(match (recorded.path.as_str(), body["stream"] == true) {
        ("/v1/messages", true) => Scene::events(anthropic_stream("ok", used)).in_pieces_of(99),
        ("/v1/messages", false) => Scene::json(200, &anthropic_whole("ok", used)),
        _ => Scene::events(openai_stream("ok", used)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_learners_at_their_budgets_edge_from_fifty_connections_are_never_over() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    let limits = [("ada", 31_000_000), ("bob", 47_000_000)];
    for (name, limit) in limits {
        stage
            .enrol(name, budget(limit, OnExhausted::Refuse), &[])
            .await;
    }
    let calls = (0..50).map(|connection| {
        let stage = &stage;
        async move {
            let mut outcomes = Vec::new();
            for round in 0..3 {
                let name = if connection % 2 == 0 { "ada" } else { "bob" };
                let response = if connection % 3 == 0 {
                    stage
                        .call(name, "/v1/chat/completions", &chat("default", true))
                        .await
                } else {
                    stage
                        .call(
                            name,
                            "/v1/messages",
                            &messages("default", 4_000, (connection + round) % 2 == 0),
                        )
                        .await
                };
                outcomes.push(response.status().as_u16());
                response.bytes().await.unwrap();
            }
            outcomes
        }
    });
    let outcomes = join_all(calls).await.concat();
    let answered = outcomes.iter().filter(|status| **status == 200).count();
    let refused = outcomes.iter().filter(|status| **status == 429).count();
    assert_eq!(answered + refused, 150, "{outcomes:?}");
    assert!(
        answered >= 10 && refused >= 10,
        "{answered} answered, {refused} refused"
    );
    let mut answers = 0;
    for (name, limit) in limits {
        let spent = stage.spent(name).await;
        assert!(
            spent.cost_nano_usd <= NanoUsd(limit),
            "{spent:?} is over {limit}"
        );
        assert!(
            spent.cost_nano_usd.0 > limit / 2,
            "{spent:?} is far under {limit}"
        );
        answers += spent.calls;
    }
    assert_eq!(answers, u64::try_from(answered).unwrap());
    let billed: u64 = provider
        .recorded()
        .iter()
        .map(|call| {
            let body = &call.body;
            24 * 10
                + 1000
                    * body["max_tokens"]
                        .as_u64()
                        .or_else(|| body["max_completion_tokens"].as_u64())
                        .unwrap()
        })
        .sum();
    let total = stage
        .spent("ada")
        .await
        .cost_nano_usd
        .plus(stage.spent("bob").await.cost_nano_usd);
    assert_eq!(
        total.0,
        i64::try_from(billed).unwrap(),
        "what the provider bills is what was charged"
    );
}

#[tokio::test]
async fn near_its_end_a_budget_lowers_the_output_and_then_refuses_in_the_one_shape() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("cy", budget(5_000_000, OnExhausted::Refuse), &[])
        .await;
    let first = stage
        .call("cy", "/v1/messages", &messages("default", 3_000, false))
        .await;
    assert_eq!(
        (
            first.status().as_u16(),
            header(&first, "carrel-max-tokens").as_str()
        ),
        (200, "")
    );
    let lowered = stage
        .call("cy", "/v1/messages", &messages("default", 3_000, false))
        .await;
    let limit: u64 = header(&lowered, "carrel-max-tokens").parse().unwrap();
    assert!((1_024..2_000).contains(&limit), "{limit}");
    assert_eq!(
        header(&lowered, "anthropic-ratelimit-unified-status"),
        "allowed_warning"
    );
    assert_eq!(provider.recorded()[1].body["max_tokens"], limit);
    let refused = stage
        .call("cy", "/v1/messages", &messages("default", 3_000, true))
        .await;
    assert_eq!(refused.status(), 429);
    // From 12:30 to midnight.
    assert_eq!(header(&refused, "retry-after"), "41400");
    assert_eq!(header(&refused, "x-should-retry"), "false");
    assert_eq!(
        header(&refused, "anthropic-ratelimit-unified-status"),
        "rejected"
    );
    assert_eq!(
        header(&refused, "anthropic-ratelimit-unified-overage-period"),
        "daily"
    );
    assert_eq!(
        refused.json::<Value>().await.unwrap()["error"]["type"],
        "billing_error"
    );
    let refused = stage
        .call("cy", "/v1/chat/completions", &chat("default", false))
        .await;
    assert_eq!(
        refused.json::<Value>().await.unwrap()["error"]["code"],
        "insufficient_quota"
    );
    assert_eq!(provider.recorded().len(), 2, "what is refused is not sent");
}

#[tokio::test]
async fn a_provider_that_fails_in_mid_stream_does_not_cost_a_learner_the_rest_of_the_day() {
    let frames = |events: &[Value]| {
        let frames = events.iter().map(|data| format!("data: {data}\n\n"));
        frames.collect::<Vec<_>>().concat()
    };
    let thinks = frames(&[
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 24, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "error", "error": {"type": "overloaded_error"}}),
    ]);
    let says = frames(&[
        json!({"choices": [{"delta": {"content": "A leap year"}}]}),
        json!({"error": {"message": "overloaded"}}),
    ]);
    let without_usage = json!({"choices": [{"message": {"content": "It has 366 days."}}]});
    let provider = Provider::playing([
        Scene::events(thinks),
        Scene::events(says),
        Scene::json(200, &without_usage),
    ]);
    let provider = provider.await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("ned", budget(7_000_000, OnExhausted::Refuse), &[])
        .await;
    let mut asked = messages("default", 5_000, true);
    asked["thinking"] = json!({"type": "enabled", "budget_tokens": 1_100});
    for (path, asked, most) in [
        ("/v1/messages", asked, 1_200_000),
        ("/v1/chat/completions", chat("default", true), 1_250_000),
        ("/v1/chat/completions", chat("default", false), 1_300_000),
    ] {
        let answer = stage.call("ned", path, &asked).await;
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        let spent = stage.spent("ned").await;
        assert!(
            (1_100_000..most).contains(&spent.cost_nano_usd.0),
            "{spent:?}"
        );
    }
}

#[tokio::test]
async fn output_is_not_lowered_under_a_thinking_budget() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("di", budget(3_000_000, OnExhausted::Refuse), &[])
        .await;
    let mut body = messages("default", 5_000, false);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 2_000});
    let lowered = stage.call("di", "/v1/messages", &body).await;
    assert!(
        header(&lowered, "carrel-max-tokens")
            .parse::<u64>()
            .unwrap()
            > 2_000
    );
    let refused = stage.call("di", "/v1/messages", &body).await;
    assert_eq!(refused.status(), 429);
}

#[tokio::test]
async fn a_class_that_degrades_goes_to_its_background_route_and_one_that_refuses_does_not() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("eva", budget(500_000, OnExhausted::Degrade), &[])
        .await;
    stage
        .enrol("fin", budget(500_000, OnExhausted::Refuse), &[])
        .await;
    let body = messages("default", 3_000, false);
    let degraded = stage.call("eva", "/v1/messages", &body).await;
    assert_eq!(
        (
            degraded.status().as_u16(),
            header(&degraded, "carrel-model").as_str()
        ),
        (200, "demo/tutor")
    );
    assert_eq!(stage.call("fin", "/v1/messages", &body).await.status(), 429);
    assert_eq!(provider.recorded().len(), 0);
}

#[tokio::test]
async fn a_background_route_without_a_price_does_not_hide_that_the_budget_is_spent() {
    let provider = Provider::answering(greedy).await.unwrap();
    let mut options = options(provider.url());
    let unpriced = vec!["house/brand-new".parse().unwrap()];
    options.routes.0.insert("background".to_owned(), unpriced);
    let stage = Stage::set(options).await;
    stage
        .enrol("jo", budget(500_000, OnExhausted::Degrade), &[])
        .await;
    let body = messages("default", 3_000, false);
    assert_eq!(stage.call("jo", "/v1/messages", &body).await.status(), 429);
    assert_eq!(provider.recorded().len(), 0);
}

#[tokio::test]
async fn a_model_without_a_price_is_not_for_callers_with_a_budget() {
    let used = Used {
        input: 3,
        output: 4,
    };
    let scene = Scene::json(200, &anthropic_whole("hi", used));
    let provider = Provider::playing([scene]).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("gil", budget(500_000, OnExhausted::Refuse), &["house/*"])
        .await;
    stage.enrol("hana", Budget::default(), &["house/*"]).await;
    let body = messages("house/brand-new", 50, false);
    let refused = stage.call("gil", "/v1/messages", &body).await;
    assert_eq!(refused.status(), 404);
    assert!(refused.text().await.unwrap().contains("no price is known"));
    assert_eq!(
        stage.call("hana", "/v1/messages", &body).await.status(),
        200
    );
    assert_eq!(stage.spent("hana").await.input_tokens, 3);
}

#[tokio::test]
async fn fields_that_raise_the_price_do_not_pass_for_a_caller_with_a_budget() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("ida", budget(90_000_000, OnExhausted::Refuse), &[])
        .await;
    let mut body = messages(MODEL, 2_000, false);
    body["service_tier"] = json!("priority");
    body["plugins"] = json!([{"id": "web"}]);
    body["mcp_servers"] = json!([{"url": "https://example.org/mcp"}]);
    body["top_k"] = json!(3);
    assert_eq!(stage.call("ida", "/v1/messages", &body).await.status(), 200);
    let sent = &provider.recorded()[0].body;
    for field in ["service_tier", "plugins", "mcp_servers"] {
        assert_eq!(sent.get(field), None);
    }
    assert_eq!(sent["top_k"], json!(3));
}

#[tokio::test]
async fn a_tool_whose_cost_no_budget_can_hold_is_refused_and_its_name_told() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage
        .enrol("kai", budget(90_000_000, OnExhausted::Degrade), &[])
        .await;
    stage.enrol("lou", Budget::default(), &[]).await;
    let tools = json!([{"name": "note", "input_schema": {}}, {"type": "code_execution_20250825", "name": "code_execution"}]);
    let mut asked = messages("default", 2_000, false);
    asked["tools"] = tools.clone();
    let refused = stage.call("kai", "/v1/messages", &asked).await;
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("'code_execution_20250825'"), "{message}");
    let mut asked_chat = chat("default", false);
    asked_chat["tools"] = json!([{"type": "openrouter:web_search"}]);
    let refused = stage.call("kai", "/v1/chat/completions", &asked_chat).await;
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("'openrouter:web_search'"), "{message}");
    assert_eq!(provider.recorded().len(), 0);
    assert_eq!(stage.spent("kai").await.calls, 0);

    assert_eq!(
        stage.call("lou", "/v1/messages", &asked).await.status(),
        200
    );
    assert_eq!(
        provider.recorded()[0].body["tools"],
        tools,
        "without a budget"
    );
}

#[tokio::test]
async fn a_learner_cannot_make_the_provider_use_another_model() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    stage.enrol("lea", Budget::default(), &[MODEL]).await;
    let mut body = messages(MODEL, 2_000, false);
    let plain = json!({"name": "note", "input_schema": {"properties": {"model": {}}}});
    body["tools"] =
        json!([plain, {"type": "advisor_20260301", "name": "advisor", "model": "dear-1"}]);
    body["models"] = json!(["dear-1"]);
    body["fallbacks"] = json!([{"model": "dear-1"}]);
    assert_eq!(stage.call("lea", "/v1/messages", &body).await.status(), 200);
    let sent = &provider.recorded()[0].body;
    assert_eq!(sent["tools"], json!([plain]));
    assert!(!sent.to_string().contains("dear-1"), "{sent}");
}

#[tokio::test]
async fn what_a_router_that_died_had_reserved_is_charged_once_no_call_can_still_run() {
    let stage = Stage::set(options("http://127.0.0.1:9")).await;
    stage
        .enrol("jan", budget(9_000_000, OnExhausted::Refuse), &[])
        .await;
    let reserve = async |minutes: i64, amount: i64| {
        let reservation = NewReservation {
            id: ReservationId(Uuid::from_u128(u128::from(amount.unsigned_abs()))),
            learner: learner("jan"),
            epoch: Some(Epoch(1)),
            model: MODEL.to_owned(),
            amount: NanoUsd(amount),
            per_day: None,
            per_month: None,
        };
        let then = now() - SignedDuration::from_mins(minutes);
        stage.store.reserve(&reservation, then).await.unwrap();
    };
    reserve(31, 700).await;
    reserve(29, 50).await;
    stage.service.sweep().await;
    stage.service.sweep().await;
    assert_eq!(stage.spent("jan").await.cost_nano_usd, NanoUsd(700));
}

#[tokio::test]
async fn the_headers_tell_of_the_budget_that_has_least_left_and_of_no_other() {
    let provider = Provider::answering(greedy).await.unwrap();
    let stage = Stage::set(options(provider.url())).await;
    let both = Budget {
        per_day_usd: Some(Usd(NanoUsd(10_000_000))),
        per_month_usd: Some(Usd(NanoUsd(20_000_000))),
        on_exhausted: OnExhausted::Refuse,
    };
    stage.enrol("max", both, &[]).await;
    // Earlier in the month 12 of 20 were spent: the month has 8 left and the day 10.
    let earlier: Timestamp = "2026-11-02T00:00:00Z".parse().unwrap();
    let before = NewReservation {
        id: ReservationId(Uuid::from_u128(8)),
        learner: learner("max"),
        epoch: None,
        model: MODEL.to_owned(),
        amount: NanoUsd(12_000_000),
        per_day: None,
        per_month: None,
    };
    stage.store.reserve(&before, earlier).await.unwrap();
    let answer = stage
        .call("max", "/v1/messages", &messages("default", 1_000, false))
        .await;
    // About 1 is reserved now: 13 of 20, which of the day's 10 would be no warning.
    let used = header(&answer, "anthropic-ratelimit-unified-overage-utilization");
    assert!(used.starts_with("0.6"), "{used}");
}
