use serde_json::json;

use super::*;

fn turn(number: u8) -> TurnId {
    format!("00000000-0000-7000-8000-0000000000{number:02}")
        .parse()
        .unwrap()
}

fn asked(number: u8) -> Entry {
    Entry::User {
        turn_id: turn(number),
        text: format!("question {number}"),
    }
}

fn answered(number: u8) -> Entry {
    Entry::assistant(turn(number), &[Block::text(format!("answer {number}"))])
}

fn workspace() -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    (folder, workspace)
}

#[test]
fn what_was_appended_is_loaded_again() {
    let (_folder, workspace) = workspace();
    let mut transcript = Transcript::load(&workspace).unwrap();
    transcript.append(&workspace, vec![asked(1)]).unwrap();
    transcript.append(&workspace, vec![answered(1)]).unwrap();
    let loaded = Transcript::load(&workspace).unwrap();
    assert_eq!(loaded.entries(), [asked(1), answered(1)]);
    assert_eq!(loaded.entries(), transcript.entries());
}

#[test]
fn a_torn_last_line_costs_that_line_and_no_other() {
    let (folder, workspace) = workspace();
    let mut transcript = Transcript::default();
    transcript
        .append(&workspace, vec![asked(1), answered(1)])
        .unwrap();
    let file = folder.path().join(".tutor/transcript.jsonl");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 5);
    std::fs::write(&file, bytes).unwrap();

    let mut transcript = Transcript::load(&workspace).unwrap();
    assert_eq!(transcript.entries(), [asked(1)]);
    transcript.append(&workspace, vec![asked(2)]).unwrap();
    let loaded = Transcript::load(&workspace).unwrap();
    assert_eq!(loaded.entries(), [asked(1), asked(2)]);
    // Two questions in a row are one message for the model.
    assert_eq!(loaded.messages(1_000).len(), 1);
}

#[test]
fn folding_puts_a_summary_first_and_dropping_keeps_the_one_there_was() {
    let (_folder, workspace) = workspace();
    let mut transcript = Transcript::default();
    let entries = (1..=3).flat_map(|n| [asked(n), answered(n)]).collect();
    transcript.append(&workspace, entries).unwrap();
    transcript
        .fold(&workspace, 2, Some("once upon a time".into()))
        .unwrap();
    transcript.fold(&workspace, 3, None).unwrap();
    let loaded = Transcript::load(&workspace).unwrap();
    assert_eq!(loaded.summary(), Some("once upon a time"));
    assert_eq!(loaded.entries()[1..], [asked(3), answered(3)]);
    assert_eq!(loaded.messages(1_000).len(), 2);
}

#[test]
fn thoughts_are_not_kept_and_tools_are() {
    let thought = Block::Thinking {
        thinking: "hm".into(),
        signature: "s".into(),
    };
    let call = Block::ToolUse {
        id: "t".into(),
        name: "list_files".into(),
        input: json!({}),
    };
    let Entry::Assistant { content, .. } = Entry::assistant(turn(1), &[thought, call.clone()])
    else {
        panic!("a step of the assistant is one");
    };
    assert_eq!(content, [call]);
}

#[test]
fn what_was_stopped_is_marked_for_programs_and_for_the_model() {
    let line = serde_json::to_value(Entry::stopped(turn(4), "So far")).unwrap();
    assert_eq!(line["stopped"], true);
    assert_eq!(
        line["content"][0]["text"],
        "So far [The learner stopped me here.]"
    );
    let silent = serde_json::to_value(Entry::stopped(turn(4), " ")).unwrap();
    assert_eq!(
        silent["content"][0]["text"],
        "[The learner stopped me here.]"
    );
}
