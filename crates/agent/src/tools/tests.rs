use std::os::unix::fs::symlink;

use super::*;

fn workspace() -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    (folder, workspace)
}

fn call(workspace: &Workspace, name: &str, input: &Value) -> Result<Outcome, String> {
    Call::parse(name, input)
        .and_then(|call| call.run(workspace))
        .map_err(|error| error.to_string())
}

fn content(workspace: &Workspace, name: &str, input: &Value) -> String {
    call(workspace, name, input).unwrap().content
}

#[test]
fn every_defined_tool_can_be_called_and_no_other() {
    for tool in definitions() {
        let name = tool["name"].as_str().unwrap();
        let input = json!({"path": "p", "content": "c", "query": "q", "note": "n"});
        assert!(Call::parse(name, &input).is_ok(), "{name}");
        let cut_short = Call::parse(name, &Value::Null);
        assert!(matches!(cut_short, Err(Error::Input(_))), "{name}");
    }
    let unknown = Call::parse("run_shell", &json!({"command": "id"}));
    assert!(matches!(unknown, Err(Error::Unknown(_))));
}

#[test]
fn a_written_file_is_listed_found_read_and_given() {
    let (_folder, workspace) = workspace();
    let file = json!({"path": "maths/fractions.md", "content": "One half\nTwo Thirds\n"});
    content(&workspace, "write_file", &file);
    assert_eq!(content(&workspace, "list_files", &json!({})), "maths/\n");
    assert_eq!(
        content(&workspace, "list_files", &json!({"path": "maths"})),
        "fractions.md (20 bytes)\n"
    );
    assert_eq!(
        content(&workspace, "search_files", &json!({"query": "two thirds"})),
        "maths/fractions.md:2: Two Thirds\n"
    );
    assert_eq!(
        content(&workspace, "search_files", &json!({"query": "quarter"})),
        "nothing found\n"
    );
    let given = call(
        &workspace,
        "give_file",
        &json!({"path": "maths/fractions.md"}),
    );
    assert_eq!(
        given.unwrap().given.unwrap(),
        GivenFile {
            name: "fractions.md".into(),
            media_type: "text/markdown",
            path: "maths/fractions.md".into()
        }
    );
}

#[test]
fn a_long_file_is_read_in_pieces_that_never_split_a_character() {
    let (folder, workspace) = workspace();
    // 3 bytes a character, and 16 KiB is no multiple of 3.
    std::fs::write(folder.path().join("long.txt"), "€".repeat(6_000)).unwrap();
    let first = content(&workspace, "read_file", &json!({"path": "long.txt"}));
    assert!(
        first.ends_with("€\n[16383 of 18000 bytes; read on with offset 16383]"),
        "{}",
        &first[first.len() - 80..]
    );
    let rest = json!({"path": "long.txt", "offset": 16_383});
    assert_eq!(content(&workspace, "read_file", &rest), "€".repeat(539));
}

#[test]
fn nothing_outside_and_nothing_of_our_own_bookkeeping_is_reached() {
    let (folder, workspace) = workspace();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "hidden words").unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    std::fs::create_dir(folder.path().join(PRIVATE_FOLDER)).unwrap();
    std::fs::write(
        folder.path().join(".tutor/transcript.jsonl"),
        "hidden words",
    )
    .unwrap();

    let secret = outside.path().join("secret");
    for path in [
        secret.to_str().unwrap(),
        "../secret",
        "out/secret",
        ".tutor/transcript.jsonl",
        "./.tutor/../.tutor/transcript.jsonl",
    ] {
        assert!(
            call(&workspace, "read_file", &json!({"path": path})).is_err(),
            "{path}"
        );
        let write = json!({"path": path, "content": "mine"});
        assert!(call(&workspace, "write_file", &write).is_err(), "{path}");
        assert!(
            call(&workspace, "give_file", &json!({"path": path})).is_err(),
            "{path}"
        );
    }
    let query = json!({"query": "hidden words"});
    assert_eq!(
        content(&workspace, "search_files", &query),
        "nothing found\n"
    );
    assert_eq!(
        content(&workspace, "list_files", &json!({})),
        "out (not a plain file)\n"
    );
}

#[test]
fn answers_are_bounded_however_much_there_is() {
    let (folder, workspace) = workspace();
    for number in 0..300 {
        let name = folder.path().join(format!("{number:03}.txt"));
        std::fs::write(name, "the same line\n".repeat(3)).unwrap();
    }
    let listed = content(&workspace, "list_files", &json!({}));
    assert_eq!(listed.lines().count(), 201);
    assert!(listed.ends_with("… and more\n"));
    let found = content(&workspace, "search_files", &json!({"query": "same"}));
    assert_eq!(found.lines().count(), 51);
    assert!(found.ends_with("… there may be more\n"));
    let huge = json!({"path": "huge", "content": "x".repeat(256 * 1024 + 1)});
    assert!(call(&workspace, "write_file", &huge).is_err());
}
