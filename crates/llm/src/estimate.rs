//! An upper bound of a request's input tokens, without a tokenizer: by classes of characters for text (about one and a
//! half times what a tokenizer finds in the worst text), by table for images and documents. Too high costs only at a budget's edge, where `fit` lowers the output; too low would overspend.

use base64::Engine as _;
use serde_json::Value;

use crate::pdf;
use crate::request::Request;

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
/// What one search of the provider's own brings into the prompt, and how often a tool that the provider runs is used when
/// the request sets no bound.
const SEARCH_TOKENS: u64 = 25_000;
const MOST_USES: u64 = 10;
/// No budget pays for so many uses.
const PAST_ANY_BUDGET: u64 = 1 << 20;

/// What a request may use at most before its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Input of every kind.
    pub input_tokens: u64,
    /// Searches of the provider's own.
    pub web_searches: u64,
    /// How often the provider may read again what was written before: once after each use of a tool that it runs.
    pub rereads: u64,
    /// Whether a part of the input may be kept in a cache for an hour or longer.
    pub long_cache: bool,
}

/// The bound of a request.
pub fn bound(request: &Request) -> Bound {
    let mut sixths = 0;
    let mut tokens = BASE_TOKENS;
    for message in request.messages() {
        tokens += MESSAGE_TOKENS;
        for (key, value) in &message.rest {
            let (text, media) = if key == "content" {
                content(value)
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
            content(value)
        } else {
            (json(value), 0)
        };
        sixths += text + text_sixths(key);
        tokens += media;
    }
    if !request.tools().is_empty() {
        tokens += TOOLS_TOKENS;
    }
    let (mut web_searches, mut uses) = (0, Vec::new());
    for tool in request.tools() {
        tokens += TOOL_TOKENS;
        sixths += json(tool);
        let kind = tool["type"].as_str().unwrap_or_default();
        let Some(brings) = server_tool(kind, tool) else {
            continue;
        };
        let times = tool["max_uses"].as_u64().unwrap_or(MOST_USES);
        let times = times.min(PAST_ANY_BUDGET);
        uses.push((brings, times));
        if kind.starts_with(WEB_SEARCH) {
            web_searches += times;
        }
    }
    let rereads = uses.iter().map(|(_, times)| times).sum::<u64>();
    let prompt = tokens.saturating_add(sixths.div_ceil(6));
    Bound {
        input_tokens: prompt
            .saturating_mul(rereads + 1)
            .saturating_add(found_tokens(uses, rereads)),
        web_searches,
        rereads,
        long_cache: has_long_cache(request),
    }
}

/// What tools that the provider runs bring into the prompt, (tokens a use, uses): each result is read again after each use
/// that follows, so that the worst order is the longest results first.
fn found_tokens(mut uses: Vec<(u64, u64)>, rereads: u64) -> u64 {
    uses.sort_by_key(|(brings, _)| std::cmp::Reverse(*brings));
    let mut follow = rereads;
    let mut found = 0_u64;
    for (brings, times) in uses {
        let readings = times * follow - times * times.saturating_sub(1) / 2;
        found = found.saturating_add(brings.saturating_mul(readings));
        follow -= times;
    }
    found
}

const WEB_SEARCH: &str = "web_search";

/// What one use of a tool that the provider runs brings into the prompt, in tokens; `None` for a tool of the client's.
fn server_tool(kind: &str, tool: &Value) -> Option<u64> {
    if kind.starts_with(WEB_SEARCH) {
        Some(SEARCH_TOKENS)
    } else if kind.starts_with("web_fetch") {
        let most = tool["max_content_tokens"].as_u64();
        Some(most.unwrap_or(UNSEEN_DOCUMENT_TOKENS))
    } else if kind.starts_with("tool_search") {
        // What it finds are tools of the request, which are counted already.
        Some(0)
    } else {
        None
    }
}

/// Bounds the uses of a tool whose uses are billed and which the request leaves unbounded, so that what was reserved holds.
pub(crate) fn bound_uses(tool: &mut Value) {
    let kind = tool["type"].as_str().unwrap_or_default();
    let is_web = kind.starts_with(WEB_SEARCH) || kind.starts_with("web_fetch");
    if is_web && !tool["max_uses"].is_u64() {
        tool["max_uses"] = MOST_USES.into();
    }
}

/// Whether the worst of a tool is known: the client runs it, or it is one whose uses are counted above.
pub(crate) fn is_bounded(tool: &Value) -> bool {
    const OF_CLIENTS: [&str; 6] = [
        "custom",
        "function",
        "bash_",
        "text_editor_",
        "computer_",
        "memory_",
    ];
    let kind = tool["type"].as_str().unwrap_or("custom");
    OF_CLIENTS.iter().any(|client| kind.starts_with(client)) || server_tool(kind, tool).is_some()
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
fn content(value: &Value) -> (u64, u64) {
    match value {
        Value::Array(blocks) => blocks
            .iter()
            .map(block)
            .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1)),
        other => (json(other), 0),
    }
}

fn block(value: &Value) -> (u64, u64) {
    let media = match value["type"].as_str().unwrap_or_default() {
        "image" => Some(("source", IMAGE_TOKENS)),
        "image_url" => Some(("image_url", IMAGE_TOKENS)),
        "document" => document(&value["source"]).map(|tokens| ("source", tokens)),
        "file" => Some(("file", file(&value["file"]))),
        "tool_result" => {
            let (text, media) = content(&value["content"]);
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
fn document(source: &Value) -> Option<u64> {
    match source["type"].as_str() {
        Some("base64") => Some(pages(source["data"].as_str().unwrap_or_default()) * PAGE_TOKENS),
        Some("url" | "file") => Some(UNSEEN_DOCUMENT_TOKENS),
        _ => None,
    }
}

fn file(file: &Value) -> u64 {
    match file["file_data"].as_str() {
        Some(data) => {
            let encoded = data.split_once(',').map_or(data, |(_, encoded)| encoded);
            pages(encoded) * PAGE_TOKENS
        }
        None => UNSEEN_DOCUMENT_TOKENS,
    }
}

/// The pages of a PDF in Base64.
fn pages(encoded: &str) -> u64 {
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    pdf::pages(decoded.as_deref().unwrap_or(encoded.as_bytes()))
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
