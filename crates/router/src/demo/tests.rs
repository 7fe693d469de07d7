use carrel_llm::{Dialect, Request};
use serde_json::{Value, json};

use super::conversation::Conversation;
use super::tutor::{Reply, reply};

fn anthropic(body: &Value) -> Request {
    Request::parse(Dialect::Anthropic, body.to_string().as_bytes()).unwrap()
}

fn tools() -> Value {
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    json!([
        tool("list_files"),
        tool("read_file"),
        tool("write_file"),
        tool("search_files"),
        tool("remember")
    ])
}

fn to(messages: &Value, system: &str) -> Reply {
    let body = json!({"model": "tutor", "max_tokens": 900, "system": system, "tools": tools(), "messages": messages});
    reply(&Conversation::of(&anthropic(&body)))
}

fn to_words(words: &str, system: &str) -> Reply {
    to(&json!([{"role": "user", "content": words}]), system)
}

const MEMORY: &str = "It stands under <memory> here.\n<memory>\n- My name is Ada Lovelace.\n- Likes engines.\n</memory>";

#[test]
fn what_it_is_told_goes_through_the_tool_and_is_confirmed() {
    let told = to_words("Hi! My name is Grace.", "");
    let call = told.call.unwrap();
    assert_eq!(
        (call.name, call.input),
        ("remember", json!({"note": "My name is Grace."}))
    );
    let after = to(
        &json!([
            {"role": "user", "content": "Hi! My name is Grace."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "remember", "input": {"note": "x"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "noted"}]},
        ]),
        "",
    );
    assert!(
        after.call.is_none() && after.text.contains("Nice to meet you, Grace!"),
        "{after:?}"
    );
}

#[test]
fn a_question_about_the_memory_is_not_a_wish() {
    for question in ["what do you remember about me", "Do you remember my name?"] {
        let reply = to_words(question, MEMORY);
        assert!(reply.call.is_none(), "{question}: {reply:?}");
        assert!(reply.text.contains("Ada Lovelace"), "{question}: {reply:?}");
    }
    let wish = to_words("Hello! Please remember that I like tea", MEMORY);
    assert_eq!(wish.call.unwrap().input, json!({"note": "I like tea."}));
}

#[test]
fn a_tool_that_fails_is_said() {
    let after = to(
        &json!([
            {"role": "user", "content": "remember that I like tea"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "remember", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": "the memory is full"}]},
        ]),
        "",
    );
    assert!(after.text.contains("the memory is full"));
}

#[test]
fn it_answers_from_the_memory_in_the_prompt() {
    for question in ["What is my name?", "what's my name", "Who am I?"] {
        assert_eq!(
            to_words(question, MEMORY).text,
            "Your name is Ada Lovelace.",
            "{question}"
        );
    }
    assert!(
        to_words("What do you know about me?", MEMORY)
            .text
            .contains("- Likes engines.")
    );
    assert!(
        to_words("Hello", MEMORY)
            .text
            .starts_with("Hello Ada Lovelace")
    );
    assert!(
        to_words("What is my name?", "")
            .text
            .contains("not told me")
    );
}

#[test]
fn it_quizzes_and_checks_the_answer_from_the_transcript() {
    let asked = to_words("Quiz me please", "").text;
    let sum = super::arithmetic::Sum::find(&asked).unwrap();
    let answer = |given: i64| {
        let messages = json!([
            {"role": "user", "content": "Quiz me please"},
            {"role": "assistant", "content": asked},
            {"role": "user", "content": format!("It is {given}!")},
        ]);
        to(&messages, "").text
    };
    let right = sum.value().unwrap();
    assert!(answer(right).starts_with("Right"), "{}", answer(right));
    assert!(
        answer(right + 1).starts_with("Not quite"),
        "{}",
        answer(right + 1)
    );
    assert!(super::arithmetic::Sum::find(&answer(right)).is_some_and(|next| next != sum));
}

#[test]
fn sums_are_worked_out() {
    for (asked, worked) in [
        ("what is 7 x 8", "7 × 8 = 56"),
        ("12+30?", "12 + 30 = 42"),
        ("How much is 9 minus 14?", "9 − 14 = -5"),
        ("84 divided by 7", "84 ÷ 7 = 12"),
    ] {
        assert!(to_words(asked, "").text.contains(worked), "{asked}");
    }
    assert!(to_words("7 / 2", "").text.contains("whole number"));
    assert!(to_words("7 / 0", "").text.contains("whole number"));
    assert!(
        to_words("9223372036854775807 + 1", "")
            .text
            .contains("whole number")
    );
}

#[test]
fn files_are_reached_through_the_offered_tools() {
    let call = |words: &str| to_words(words, "").call.map(|call| (call.name, call.input));
    assert_eq!(call("show my files"), Some(("list_files", json!({}))));
    assert_eq!(
        call("Search for photosynthesis"),
        Some(("search_files", json!({"query": "photosynthesis"})))
    );
    assert_eq!(
        call("Write a poem to file poem.txt"),
        Some((
            "write_file",
            json!({"path": "poem.txt", "content": "a poem\n"})
        ))
    );
}

#[test]
fn it_says_what_it_is_and_how_to_set_a_key() {
    assert!(
        to_words("Are you real?", "")
            .text
            .contains("ANTHROPIC_API_KEY")
    );
    assert!(to_words("xyzzy", "").text.contains("stand-in"));
}

#[test]
fn both_dialects_and_both_ways_say_the_same() {
    let system = json!({"role": "system", "content": "s"});
    let user = json!({"role": "user", "content": "hello"});
    let messages = json!({"model": "tutor", "max_tokens": 400, "messages": [user]});
    let chat = json!({"model": "tutor", "messages": [system, user]});
    let expected = super::tutor::reply(&Conversation::of(&anthropic(&messages))).text;
    for (dialect, body) in [(Dialect::Anthropic, messages), (Dialect::OpenAiChat, chat)] {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = json!(stream);
            let request = Request::parse(dialect, body.to_string().as_bytes()).unwrap();
            assert_eq!(spoken(&request), expected, "{dialect} {stream}");
        }
    }
}

#[test]
fn the_limit_of_output_cuts_it() {
    let body = json!({"model": "tutor", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]});
    let whole: Value = serde_json::from_str(&whole(&anthropic(&body))).unwrap();
    assert_eq!(whole["stop_reason"], "max_tokens");
    assert!(whole["usage"]["output_tokens"].as_u64().unwrap() <= 5);
}

fn whole(request: &Request) -> String {
    pieces(request).concat()
}

fn pieces(request: &Request) -> Vec<String> {
    use futures::{FutureExt as _, StreamExt as _};
    let answer = super::answer(request);
    let body = answer.body.collect::<Vec<_>>().now_or_never().unwrap();
    body.into_iter()
        .map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
        .collect()
}

/// The text of an answer, however it comes.
fn spoken(request: &Request) -> String {
    let pieces = pieces(request);
    if !request.streams() {
        let body: Value = serde_json::from_str(&pieces.concat()).unwrap();
        let text = body["content"][0]["text"].as_str();
        return text
            .or_else(|| body["choices"][0]["message"]["content"].as_str())
            .unwrap()
            .to_owned();
    }
    assert!(pieces.len() > 10, "several small pieces");
    let data = pieces
        .iter()
        .filter_map(|piece| serde_json::from_str::<Value>(piece.split_once("data: ")?.1).ok());
    data.filter_map(|data| {
        let text = data["delta"]["text"].as_str();
        text.or_else(|| data["choices"][0]["delta"]["content"].as_str())
            .map(str::to_owned)
    })
    .collect()
}
