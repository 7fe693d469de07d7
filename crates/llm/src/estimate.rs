//! An upper bound of a request's input tokens, without a tokenizer: by classes of characters for text (about one and a
//! half times what a tokenizer finds in the worst text), by table for images and documents. Too high costs only at a budget's edge, where `fit` lowers the output; too low would overspend.

use base64::Engine as _;
use serde_json::Value;

use crate::meter::Uses;
use crate::pdf::{self, Room};
use crate::request::Request;
use crate::server_tools;

/// What an image may cost at most (Anthropic: 4,784 at full resolution; OpenAI: 10,000 patches at most).
const IMAGE_TOKENS: u64 = 10_000;
/// One page of a document: its text and its picture.
const PAGE_TOKENS: u64 = 5_000;
/// A document that the provider fetches or keeps: its size cannot be seen.
const UNSEEN_DOCUMENT_TOKENS: u64 = 100 * PAGE_TOKENS;
/// What a message costs beside its text.
const MESSAGE_TOKENS: u64 = 12;
/// What a tool costs beside its text.
const TOOL_TOKENS: u64 = 24;
/// The prompt that providers add when there are tools, and their fixed part.
const TOOLS_TOKENS: u64 = 1_000;
const BASE_TOKENS: u64 = 32;

/// What a request may use at most before its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// Input of every kind, as often as it is read.
    pub input_tokens: u64,
    /// Searches of the provider's own.
    pub web_searches: u64,
    /// How often the provider may read again what was written before: after each round of tools that it runs.
    pub rereads: u64,
    /// Whether a part of the input may be kept in a cache for an hour or longer.
    pub long_cache: bool,
    /// The input that is sent, read once.
    pub prompt_tokens: u64,
    /// What all uses of tools that the provider runs add to it.
    pub(crate) found_tokens: u64,
    /// The most that one use of a tool that the provider runs adds to it.
    pub(crate) most_found_tokens: u64,
}

impl Bound {
    /// What still holds when the provider's tools were used so many times at most.
    #[must_use]
    pub fn with_uses(self, Uses { rounds, uses }: Uses) -> Self {
        let rereads = self.rereads.min(rounds);
        let found = self.most_found_tokens.saturating_mul(uses);
        let found = found.min(self.found_tokens);
        Self {
            input_tokens: self
                .input_tokens
                .min(read(self.prompt_tokens, found, rereads)),
            web_searches: self.web_searches.min(uses),
            rereads,
            ..self
        }
    }
}

/// A prompt that is read once and again so many times, with what was found meanwhile: all of it at once in the worst case.
fn read(prompt: u64, found: u64, rereads: u64) -> u64 {
    let again = prompt.saturating_add(found).saturating_mul(rereads);
    prompt.saturating_add(again)
}

/// The bound of a request.
pub fn bound(request: &Request) -> Bound {
    let mut room = Room::default();
    let mut sixths = 0;
    let mut tokens = BASE_TOKENS;
    for message in request.messages() {
        tokens += MESSAGE_TOKENS;
        for (key, value) in &message.rest {
            let (text, media) = if key == "content" {
                content(value, &mut room)
            } else {
                (json(value), 0)
            };
            sixths += text + text_sixths(key);
            tokens += media;
        }
    }
    let rest = match request {
        Request::Messages(request) => &request.rest,
        Request::Chat(request) => &request.rest,
    };
    for (key, value) in rest {
        let (text, media) = if key == "system" {
            content(value, &mut room)
        } else {
            (json(value), 0)
        };
        sixths += text + text_sixths(key);
        tokens += media;
    }
    if !request.tools().is_empty() {
        tokens += TOOLS_TOKENS;
    }
    for tool in request.tools() {
        tokens += TOOL_TOKENS;
        sixths += json(tool);
    }
    let served = server_tools::served(request.tools());
    let prompt_tokens = tokens.saturating_add(sixths.div_ceil(6));
    Bound {
        input_tokens: read(prompt_tokens, served.found_tokens, served.rereads),
        web_searches: served.web_searches,
        rereads: served.rereads,
        long_cache: has_long_cache(request),
        prompt_tokens,
        found_tokens: served.found_tokens,
        most_found_tokens: served.most_found_tokens,
    }
}

/// Whether a request has documents, for whose bound they are unpacked: no work for a thread that others wait for.
pub fn has_documents(request: &Request) -> bool {
    fn within(content: &Value) -> bool {
        let mut blocks = content.as_array().into_iter().flatten();
        blocks.any(|block| {
            matches!(block["type"].as_str(), Some("document" | "file")) || within(&block["content"])
        })
    }
    let system = match request {
        Request::Messages(request) => request.rest.get("system"),
        Request::Chat(_) => None,
    };
    system.is_some_and(within) || request.messages().iter().any(|m| within(m.content()))
}

/// At most so many tokens has a text.
pub fn text_tokens(text: &str) -> u64 {
    text_sixths(text).div_ceil(6)
}

/// Sixths of a token. Measured against the tokenizers of GPT-4, GPT-4o, Claude 2 and `DeepSeek`: random letters, which
/// break into the shortest pieces, stay under it by a tenth; English prose by a factor of about two.
fn text_sixths(text: &str) -> u64 {
    let mut sixths = 0;
    let mut previous = ' ';
    for character in text.chars() {
        let within_word = match character {
            'a'..='z' => previous.is_ascii_alphabetic(),
            'A'..='Z' => previous.is_ascii_uppercase(),
            _ => false,
        };
        sixths += match character {
            'a' | 'e' | 'i' | 'o' | 'u' | 'r' | 's' | 't' | 'n' | 'l' | 'h' | 'd'
                if within_word =>
            {
                3
            }
            _ if within_word => 4,
            // Most often part of the word that follows.
            ' ' if previous != ' ' && previous.is_ascii() => 2,
            // The first letter of a word, digits, signs, white space.
            '\0'..='\u{bf}' => 6,
            // Latin letters with marks, rarely in words of one token.
            '\u{c0}'..='\u{36f}' => 12,
            '\u{370}'..='\u{7ff}' => 9,
            // A token a byte.
            '\u{800}'..='\u{ffff}' => 18,
            '\u{10000}'.. => 24,
        };
        previous = character;
    }
    sixths
}

/// A JSON value as text: keys, values and the signs between them.
fn json(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) => 6,
        Value::Number(number) => text_sixths(&number.to_string()),
        Value::String(text) => 12 + text_sixths(text),
        Value::Array(items) => 12 + items.iter().map(|item| json(item) + 6).sum::<u64>(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| text_sixths(key) + json(value) + 18;
            12 + fields.iter().map(field).sum::<u64>()
        }
    }
}

/// The content of a message or a tool's result: (sixths of text, tokens of media).
fn content(value: &Value, room: &mut Room) -> (u64, u64) {
    match value {
        Value::Array(blocks) => blocks
            .iter()
            .map(|value| block(value, room))
            .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1)),
        other => (json(other), 0),
    }
}

fn block(value: &Value, room: &mut Room) -> (u64, u64) {
    let media = match value["type"].as_str().unwrap_or_default() {
        "image" => Some(("source", IMAGE_TOKENS)),
        "image_url" => Some(("image_url", IMAGE_TOKENS)),
        "document" => document(&value["source"], room).map(|tokens| ("source", tokens)),
        "file" => Some(("file", file(&value["file"], room))),
        "tool_result" => {
            let (text, media) = content(&value["content"], room);
            let (beside, _) = without(value, "content");
            return (text + beside, media);
        }
        _ => None,
    };
    match media {
        Some((field, tokens)) => (without(value, field).0, tokens),
        None => (json(value), 0),
    }
}

/// A block's text beside one field, whose content is counted by table.
fn without(value: &Value, left_out: &str) -> (u64, u64) {
    let fields = value.as_object().into_iter().flatten();
    let beside = fields.filter(|(key, _)| *key != left_out);
    let text = beside.map(|(key, value)| text_sixths(key) + json(value) + 18);
    (12 + text.sum::<u64>(), 0)
}

/// The tokens of a document's source; `None` when it is text and counts as such.
fn document(source: &Value, room: &mut Room) -> Option<u64> {
    match source["type"].as_str() {
        Some("base64") => Some(pages(source["data"].as_str().unwrap_or_default(), room)),
        Some("url" | "file") => Some(UNSEEN_DOCUMENT_TOKENS),
        _ => None,
    }
}

fn file(file: &Value, room: &mut Room) -> u64 {
    match file["file_data"].as_str() {
        Some(data) => {
            let encoded = data.split_once(',').map_or(data, |(_, encoded)| encoded);
            pages(encoded, room)
        }
        None => UNSEEN_DOCUMENT_TOKENS,
    }
}

/// The tokens of a PDF in Base64, by its pages.
fn pages(encoded: &str, room: &mut Room) -> u64 {
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    pdf::pages(decoded.as_deref().unwrap_or(encoded.as_bytes()), room) * PAGE_TOKENS
}

/// Whether any `cache_control` asks for longer than minutes, or the request keeps its prompt for longer.
fn has_long_cache(request: &Request) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(within),
            Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
                "cache_control" => value["ttl"].as_str().is_some_and(|ttl| ttl != "5m"),
                "prompt_cache_retention" => value != "in_memory",
                _ => within(value),
            }),
            _ => false,
        }
    }
    let rest = match request {
        Request::Messages(request) => &request.rest,
        Request::Chat(request) => &request.rest,
    };
    let in_messages = request
        .messages()
        .iter()
        .any(|m| m.rest.values().any(within));
    in_messages || request.tools().iter().any(within) || within(&Value::Object(rest.clone()))
}

#[cfg(test)]
mod tests;
