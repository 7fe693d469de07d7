//! Turns that go wrong, and stops.

use serde_json::json;
use tokio::sync::mpsc;

use crate::desk::{Desk, first_line, text};
use crate::script::Scene;

#[tokio::test]
async fn a_spent_budget_ends_the_turn_with_its_own_sentence_after_one_call() {
    let desk = Desk::with(vec![Scene::Refuses(
        429,
        vec![("x-should-retry", "false"), ("retry-after", "3600")],
        "billing_error",
        "Today's budget is spent. It is fresh again at midnight.",
    )])
    .await;
    let lines = desk.turn(1, "hello").await;
    assert_eq!(
        lines,
        [json!({"type": "error", "code": "budget_exhausted",
            "message": "Today's budget is spent. It is fresh again at midnight.", "retryable": false,
            "reason": "the budget is spent: Today's budget is spent. It is fresh again at midnight."})]
    );
    assert_eq!(desk.model.asked().len(), 1);
}

#[tokio::test]
async fn a_busy_model_is_tried_again_and_the_learner_sees_one_answer() {
    let desk = Desk::with(vec![
        Scene::Refuses(529, vec![], "overloaded_error", "Overloaded"),
        Scene::Says(vec!["There you are."]),
    ])
    .await;
    let lines = desk.turn(2, "hello").await;
    assert_eq!(text(&lines), "There you are.");
    assert_eq!(lines.last().unwrap()["type"], "done");
}

#[tokio::test]
async fn an_answer_that_breaks_off_fails_the_turn_and_is_not_said_twice() {
    let desk = Desk::with(vec![
        Scene::BreaksAfter("Half an "),
        Scene::Says(vec!["never asked for"]),
    ])
    .await;
    let lines = desk.turn(3, "hello").await;
    assert_eq!(text(&lines), "Half an ");
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["code"]),
        (&json!("error"), &json!("model_unavailable"))
    );
    assert_eq!(last["retryable"], true);
    assert_eq!(desk.model.scenes_left(), 1);
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_sent_again_without_its_older_part() {
    let overflow = "prompt is too long: 250000 tokens > 200000 maximum";
    let desk = Desk::with(vec![
        Scene::Says(vec!["First."]),
        Scene::Refuses(400, vec![], "invalid_request_error", overflow),
        Scene::Says(vec!["Second."]),
    ])
    .await;
    desk.turn(4, "one").await;
    let lines = desk.turn(5, "two").await;
    assert_eq!(text(&lines), "Second.");
    let asked = desk.model.asked();
    assert_eq!(asked[1]["messages"].as_array().unwrap().len(), 3);
    assert_eq!(asked[2]["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_caller_going_away_ends_the_models_call_and_keeps_what_was_said_marked() {
    let (gone, mut was_gone) = mpsc::channel(1);
    let mut desk = Desk::with(vec![
        Scene::SaysThenWaits("So far", gone),
        Scene::Says(vec!["Going on."]),
    ])
    .await;
    let answer = desk.begin(6, "a long story", json!({})).await;
    let (first, rest) = first_line(answer).await;
    assert_eq!(first, json!({"type": "text", "text": "So far"}));
    drop(rest);
    was_gone.recv().await.unwrap();

    // The next turn waits for the stopped one to have put its things away.
    desk.turn(7, "go on").await;
    let asked = desk.model.asked();
    let messages = asked[1]["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(
        messages[1]["content"][0]["text"],
        "So far [The learner stopped me here.]"
    );
    assert_eq!(desk.transcript()[1]["stopped"], true);
    desk.end().await;
}

#[tokio::test]
async fn the_server_ends_in_the_middle_of_a_turn_and_keeps_what_was_said() {
    let (gone, mut was_gone) = mpsc::channel(1);
    let mut desk = Desk::with(vec![Scene::SaysThenWaits("Once upon", gone)]).await;
    let answer = desk.begin(8, "a story", json!({})).await;
    let (_, rest) = first_line(answer).await;
    desk.end().await;
    was_gone.recv().await.unwrap();
    drop(rest);
    assert_eq!(desk.transcript()[1]["stopped"], true);
}

#[tokio::test]
async fn a_model_that_is_not_there_fails_the_turn_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let desk = Desk::asking(&nobody).await;
    let began = std::time::Instant::now();
    let lines = desk.turn(9, "hello").await;
    assert_eq!(lines[0]["code"], "model_unavailable");
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the model could not be reached: "),
        "{reason}"
    );
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
}
