//! Turns that go well.

use serde_json::json;

use crate::desk::{Desk, text};
use crate::script::Scene;

#[tokio::test]
async fn an_answer_streams_and_the_next_turn_remembers_it() {
    let desk = Desk::with(vec![
        Scene::Says(vec!["Hello ", "Ada."]),
        Scene::Says(vec!["Your name is Ada."]),
    ])
    .await;
    assert!(desk.is_ready().await);
    let first = desk.turn(1, "I am Ada").await;
    assert_eq!(
        first,
        [
            json!({"type": "text", "text": "Hello "}),
            json!({"type": "text", "text": "Ada."}),
            json!({"type": "done"}),
        ]
    );
    desk.turn(2, "Who am I?").await;

    let asked = desk.model.asked();
    let messages = asked[1]["messages"].as_array().unwrap();
    let roles: Vec<_> = messages
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(messages[0]["content"][0]["text"], "I am Ada");
    assert_eq!(messages[1]["content"][0]["text"], "Hello Ada.");
    assert_eq!(messages[2]["content"][0]["text"], "Who am I?");
    assert_eq!(asked[1]["model"], "default");
    assert_eq!(desk.model.tokens()[1], "Bearer carrel");
}

#[tokio::test]
async fn a_tool_is_shown_run_and_answered_and_its_note_is_in_the_next_prompt() {
    let desk = Desk::with(vec![
        Scene::Uses(
            "One moment.",
            "remember",
            json!({"note": "Ada likes chess"}),
        ),
        Scene::Says(vec!["Noted!"]),
        Scene::Says(vec!["Chess."]),
    ])
    .await;
    let lines = desk.turn(3, "I like chess").await;
    assert_eq!(text(&lines), "One moment.\n\nNoted!");
    let tools: Vec<_> = lines.iter().filter(|line| line["type"] == "tool").collect();
    assert_eq!(
        tools,
        [
            &json!({"type": "tool", "id": "toolu_7", "name": "remember", "status": "started",
                "summary": "Remembering: Ada likes chess"}),
            &json!({"type": "tool", "id": "toolu_7", "name": "remember", "status": "done",
                "summary": "Remembering: Ada likes chess"}),
        ]
    );
    let memory = std::fs::read_to_string(desk.path("MEMORY.md")).unwrap();
    assert_eq!(memory, "- Ada likes chess\n");

    desk.turn(4, "What do I like?").await;
    let asked = desk.model.asked();
    let result = &asked[1]["messages"][2]["content"][0];
    assert_eq!(result["tool_use_id"], "toolu_7");
    assert_eq!(result["content"], "remembered");
    assert!(!asked[1]["system"].to_string().contains("likes chess"));
    assert!(asked[2]["system"].to_string().contains("- Ada likes chess"));
}

#[tokio::test]
async fn a_file_of_the_workspace_goes_with_the_reply() {
    let desk = Desk::with(vec![
        Scene::Uses("", "give_file", json!({"path": "sheets/one.md"})),
        Scene::Says(vec!["Here it is."]),
    ])
    .await;
    std::fs::create_dir(desk.path("sheets")).unwrap();
    std::fs::write(desk.path("sheets/one.md"), "2 + 2 = ?").unwrap();
    let lines = desk.turn(5, "A worksheet, please").await;
    let file = json!({"type": "file", "name": "one.md", "media_type": "text/markdown", "path": "sheets/one.md"});
    assert!(lines.contains(&file), "{lines:?}");
}

#[tokio::test]
async fn lost_turns_and_attachments_reach_the_model() {
    let desk = Desk::with(vec![Scene::Says(vec!["A square."])]).await;
    std::fs::create_dir(desk.path("inbox")).unwrap();
    std::fs::write(desk.path("inbox/shape.png"), b"\x89PNG").unwrap();
    let more = json!({
        "attachments": [{"name": "shape.png", "media_type": "image/png", "path": "inbox/shape.png"}],
        "context": [{"message": "I am nine", "reply": "Good to know"}],
    });
    desk.turn_with(6, "What is this?", more).await;

    let asked = desk.model.asked();
    let content = asked[0]["messages"][0]["content"].as_array().unwrap();
    assert_eq!(content[0]["source"]["data"], "iVBORw==");
    let words = content[1]["text"].as_str().unwrap();
    for part in [
        "I am nine",
        "Good to know",
        "What is this?",
        "inbox/shape.png",
    ] {
        assert!(words.contains(part), "{part} in {words}");
    }
    // The picture itself is not kept in the transcript.
    assert!(!desk.transcript()[0].to_string().contains("iVBORw"));
}

#[tokio::test]
async fn a_long_conversation_is_summarised_and_goes_on_with_the_summary() {
    let desk = Desk::remembering(
        vec![
            Scene::Says(vec!["First answer."]),
            Scene::Says(vec!["Second answer."]),
            Scene::Says(vec!["Ada learned halves."]),
            Scene::Says(vec!["Third answer."]),
        ],
        300,
    )
    .await;
    desk.turn(7, &"first ".repeat(100)).await;
    let second = desk.turn(8, &"second ".repeat(100)).await;
    assert_eq!(text(&second), "Second answer.");
    assert!(second.iter().any(|line| line["type"] == "status"));
    desk.turn(9, "third").await;

    let asked = desk.model.asked();
    assert_eq!(desk.model.scenes_left(), 0);
    assert!(asked[2]["messages"].to_string().contains("First answer."));
    assert!(!asked[2]["messages"].to_string().contains("Second answer."));
    assert!(
        asked[3]["system"]
            .to_string()
            .contains("Ada learned halves.")
    );
    assert!(!asked[3]["messages"].to_string().contains("First answer."));
    assert!(asked[3]["messages"].to_string().contains("Second answer."));
    assert_eq!(desk.transcript()[0]["text"], "Ada learned halves.");
}

#[tokio::test]
async fn a_model_that_never_stops_asking_for_tools_is_ended() {
    let scenes = (0..12).map(|_| Scene::Uses("Again.", "list_files", json!({})));
    let desk = Desk::with(scenes.collect()).await;
    let lines = desk.turn(10, "go").await;
    assert_eq!(lines.last().unwrap()["type"], "done");
    assert_eq!(desk.model.scenes_left(), 0);
    let asked = desk.model.asked();
    assert_eq!(asked[11]["tool_choice"]["type"], "none");
    // What is kept can be sent again: no call without its answer.
    let transcript = desk.transcript();
    let last = transcript.last().unwrap();
    assert_eq!(last["kind"], "assistant");
    assert_eq!(last["content"], json!([{"type": "text", "text": "Again."}]));
}
