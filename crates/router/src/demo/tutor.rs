//! What the stand-in says. One function from a conversation to a reply; the first rule that fits answers.

use serde_json::{Value, json};

use super::arithmetic::{Sum, number};
use super::conversation::{Conversation, Said};
use super::facts;

/// What is said, and what is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) call: Option<Call>,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) input: Value,
}

const ABILITIES: &str = "I can greet you, remember what you tell me (“My name is …”, “Remember that …”), tell you what I \
know about you, look through your files, and quiz you in arithmetic (“Quiz me”).";
const STAND_IN: &str = "I am `demo/tutor`, a stand-in that is built into Carrel: no language model, only a few rules, so \
that everything around me can be tried without a key. For a real tutor, set `ANTHROPIC_API_KEY` (or \
`OPENROUTER_API_KEY`, or a local server that speaks Anthropic's dialect in `carrel.yaml`) and start `carrel up` again.";

/// The reply to a conversation.
pub(crate) fn reply(conversation: &Conversation) -> Reply {
    match conversation.said.last() {
        Some(Said::Result { content, is_error }) => {
            say(after_tool(conversation, content, *is_error))
        }
        Some(Said::Learner(text))
            if conversation.system.contains("older part of a conversation") =>
        {
            say(summary(conversation, text))
        }
        Some(Said::Learner(text)) => to_learner(conversation, text.trim()),
        Some(Said::Tutor { .. }) | None => say(greeting(conversation)),
    }
}

fn say(text: impl Into<String>) -> Reply {
    Reply {
        text: text.into(),
        call: None,
    }
}

fn to_learner(conversation: &Conversation, text: &str) -> Reply {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if let Some(answer) = quiz_answer(conversation, text) {
        return say(answer);
    }
    if let Some(note) = facts::note_in(text) {
        return note_down(conversation, &note);
    }
    if let Some(call) = file_call(conversation, text, &lower) {
        return Reply {
            text: String::new(),
            call: Some(call),
        };
    }
    if has(&["my name", "who am i", "who i am"]) {
        return say(match facts::name(conversation) {
            Some(name) => format!("Your name is {name}."),
            None => "You have not told me your name yet. What is it?".to_owned(),
        });
    }
    if has(&[
        "know about me",
        "remember about me",
        "do you remember",
        "do you know about",
        "have i told you",
    ]) {
        return say(what_is_known(conversation));
    }
    if has(&["stop", "enough", "no more"]) && last_question(conversation).is_some() {
        return say("All right, we stop here. Well done for practising!");
    }
    if let Some(sum) = Sum::find(text) {
        return say(match sum.value() {
            Some(value) => {
                format!("{sum} = {value}. Say “Quiz me” if you want to practise such sums.")
            }
            None => format!("{sum} does not come to a whole number that I can handle."),
        });
    }
    if has(&[
        "quiz",
        "arithmetic",
        "practise",
        "practice",
        "test me",
        "math",
        "sums",
    ]) {
        return say(format!("Let us practise. {}", question(conversation)));
    }
    if has(&[
        "who are you",
        "what are you",
        "stand-in",
        "api key",
        "real tutor",
        "which model",
        "are you real",
    ]) {
        return say(STAND_IN);
    }
    if has(&["help", "what can you do"]) {
        return say(format!("{ABILITIES}\n\n{STAND_IN}"));
    }
    let is_greeting = [
        "hi",
        "hello",
        "hey",
        "good morning",
        "good evening",
        "good afternoon",
        "hola",
        "hallo",
    ]
    .iter()
    .any(|word| {
        lower == *word
            || lower.starts_with(&format!("{word} "))
            || lower.starts_with(&format!("{word},"))
            || lower.starts_with(&format!("{word}!"))
    });
    if is_greeting {
        return say(greeting(conversation));
    }
    if has(&["thank", "bye", "good night"]) {
        return say(
            "You are welcome. What I was asked to remember is kept; come back whenever you like.",
        );
    }
    let quoted: String = text.chars().take(200).collect();
    say(format!(
        "You said: “{quoted}”. I have no rule for that. {ABILITIES}\n\n{STAND_IN}"
    ))
}

fn greeting(conversation: &Conversation) -> String {
    match facts::name(conversation) {
        Some(name) => format!(
            "Hello {name}, good to see you again! Shall we go on? Say “Quiz me”, or ask what I know about you."
        ),
        None => format!("Hello! I am your tutor's stand-in. What is your name? {ABILITIES}"),
    }
}

fn note_down(conversation: &Conversation, note: &str) -> Reply {
    if conversation.offers("remember") {
        return Reply {
            text: String::new(),
            call: Some(Call {
                name: "remember",
                input: json!({"note": note}),
            }),
        };
    }
    say(format!("I will keep that in mind while we talk: {note}"))
}

/// After a tool: what was called says what its result means.
fn after_tool(conversation: &Conversation, content: &str, is_error: bool) -> String {
    let called = conversation.said.iter().rev().find_map(|said| match said {
        Said::Tutor { calls, .. } => calls.last().map(String::as_str),
        Said::Learner(_) | Said::Result { .. } => None,
    });
    if is_error {
        return format!("That did not work: {content}");
    }
    let asked = conversation.learner().next_back().unwrap_or_default();
    match (called, facts::note_in(asked)) {
        (Some("remember"), Some(note)) => {
            let greeting = match facts::name(conversation) {
                Some(name) if note.contains(&name) => format!("Nice to meet you, {name}! "),
                _ => String::new(),
            };
            format!("{greeting}I have noted: {note} I will still know it when you come back.")
        }
        (Some("list_files"), _) if content.trim().is_empty() => "Your folder is empty.".to_owned(),
        (Some("list_files"), _) => format!("Here is what I found:\n\n{content}"),
        (Some("write_file"), _) => "I have written it down.".to_owned(),
        _ => content.to_owned(),
    }
}

fn file_call(conversation: &Conversation, text: &str, lower: &str) -> Option<Call> {
    let after = |mark: &str| {
        let from = lower.find(mark)? + mark.len();
        let rest = text
            .get(from..)?
            .trim()
            .trim_matches(['"', '“', '”', '?', '.', '`']);
        (!rest.is_empty()).then(|| rest.to_owned())
    };
    let call = |name, input| conversation.offers(name).then_some(Call { name, input });
    if lower.contains("my files") || lower.contains("list files") || lower.contains("what files") {
        return call("list_files", json!({}));
    }
    if let Some(query) = after("search for ") {
        return call("search_files", json!({"query": query}));
    }
    if let Some(path) = after("read the file ").or_else(|| after("read file ")) {
        return call("read_file", json!({"path": path}));
    }
    let (content, path) = text
        .split_once(" to the file ")
        .or_else(|| text.split_once(" to file "))?;
    let content = content
        .split_once(' ')
        .filter(|(verb, _)| verb.eq_ignore_ascii_case("write"))?
        .1;
    let path = path.trim().trim_end_matches('.');
    call(
        "write_file",
        json!({"path": path, "content": format!("{content}\n")}),
    )
}

fn what_is_known(conversation: &Conversation) -> String {
    let known = facts::known(conversation);
    if known.is_empty() {
        return "Nothing yet. Tell me something: “Remember that I like football.”".to_owned();
    }
    let lines: Vec<_> = known.iter().map(|note| format!("- {note}")).collect();
    format!("This is what you told me:\n\n{}", lines.join("\n"))
}

/// For an agent that makes its transcript shorter.
fn summary(conversation: &Conversation, text: &str) -> String {
    let mut known = facts::known(conversation);
    known.extend(text.lines().filter_map(facts::note_in).take(20));
    known.dedup();
    if known.is_empty() {
        return "The learner and the tutor talked; nothing was asked to be remembered.".to_owned();
    }
    format!("The learner told: {}", known.join(" "))
}

fn question(conversation: &Conversation) -> String {
    let asked = conversation
        .said
        .iter()
        .filter(|said| matches!(said, Said::Tutor { .. }))
        .count();
    format!("What is {}?", Sum::at(asked))
}

fn last_question(conversation: &Conversation) -> Option<Sum> {
    let words = conversation.last_words()?;
    let (_, question) = words.rsplit_once("What is ")?;
    question
        .ends_with('?')
        .then(|| Sum::find(question))
        .flatten()
}

/// A number after a question of ours is its answer.
fn quiz_answer(conversation: &Conversation, text: &str) -> Option<String> {
    let sum = last_question(conversation)?;
    let (given, right) = (number(text)?, sum.value()?);
    let verdict = if given == right {
        format!("Right, {sum} = {right}!")
    } else {
        format!("Not quite: {sum} = {right}, not {given}.")
    };
    Some(format!(
        "{verdict} The next one: {}",
        question(conversation)
    ))
}
