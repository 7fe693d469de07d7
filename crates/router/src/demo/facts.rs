//! What the learner told: found in what it says and in the memory that its agent puts into the prompt.

use super::conversation::Conversation;

const NAME_MARKS: [&str; 6] = [
    "my name is ",
    "name is ",
    "my name's ",
    "call me ",
    "i am called ",
    "name: ",
];
const NOTE_MARKS: [&str; 8] = [
    "please remember that ",
    "please remember ",
    "remember that ",
    "remember: ",
    "remember ",
    "don't forget that ",
    "note that ",
    "keep in mind that ",
];

/// The learner's name: the newest that it told, else what the memory says.
pub(crate) fn name(conversation: &Conversation) -> Option<String> {
    let told = conversation.learner().rev().find_map(name_in);
    told.or_else(|| {
        memory(conversation)
            .iter()
            .rev()
            .find_map(|note| name_in(note))
    })
}

/// Everything that is known, the memory first.
pub(crate) fn known(conversation: &Conversation) -> Vec<String> {
    let mut known = memory(conversation);
    for told in conversation.learner().filter_map(note_in) {
        if !known.contains(&told) {
            known.push(told);
        }
    }
    known
}

/// What a message asks to be remembered, as one sentence.
pub(crate) fn note_in(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let is_question = text.trim_end().ends_with('?');
    if is_question {
        return None;
    }
    let from = NOTE_MARKS.iter().find_map(|mark| {
        let at = lower.find(mark)?;
        // A wish begins a sentence; "what do you remember" is none.
        let before = lower[..at].trim_end();
        let is_wish = before.is_empty() || before.ends_with(['.', '!', ',', ':', ';']);
        is_wish.then_some(at + mark.len())
    });
    if let Some(note) = from.and_then(|from| text.get(from..)) {
        return sentence(note);
    }
    let name = name_in(text).filter(|_| !lower.starts_with("what"))?;
    Some(format!("My name is {name}."))
}

/// A name after one of the usual turns of phrase: words with a capital, or one word.
fn name_in(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let from = NAME_MARKS
        .iter()
        .find_map(|mark| Some(lower.find(mark)? + mark.len()))?;
    let words: Vec<_> = text.get(from..)?.split_whitespace().collect();
    let mut name = Vec::new();
    for word in words.into_iter().take(4) {
        let plain = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_capital = plain.starts_with(char::is_uppercase);
        if plain.is_empty() || (!name.is_empty() && !is_capital) {
            break;
        }
        name.push(plain);
        if word.ends_with(['.', ',', '!', '?', ';']) {
            break;
        }
    }
    (!name.is_empty()).then(|| name.join(" "))
}

/// The notes under `<memory>` in the prompt, one a line.
fn memory(conversation: &Conversation) -> Vec<String> {
    let system = &conversation.system;
    let learner = conversation.learner().next().unwrap_or_default();
    let between = |text: &str| {
        // The last one: a prompt may speak of the mark before it uses it.
        let (_, rest) = text.rsplit_once("<memory>")?;
        Some(rest.split("</memory>").next().unwrap_or(rest).to_owned())
    };
    let memory = between(system)
        .or_else(|| between(learner))
        .unwrap_or_default();
    let notes = memory
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "));
    notes.map(|note| note.trim().to_owned()).collect()
}

fn sentence(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut letters = text.trim_matches(['"', '“', '”']).chars();
    let first = letters.next()?;
    let note: String = first.to_uppercase().chain(letters).take(300).collect();
    let ended = note.ends_with(['.', '!']);
    Some(if ended { note } else { format!("{note}.") })
}
