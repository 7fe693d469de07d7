//! A model that speaks Anthropic's Messages dialect: what is sent, what comes back, what goes wrong.
//! (Anthropic API reference, "Messages" and "Streaming messages", version 2023-06-01.)

mod answer;
mod client;
mod failure;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use answer::{Answer, Event, StopReason};
pub(crate) use client::Client;
pub(crate) use failure::Failure;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    User,
    Assistant,
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: Vec<Block>,
}

/// A part of a message. Only the kinds that a small tutor sends or gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    Text {
        text: String,
    },
    Image {
        source: ImageSource,
    },
    /// Sent back as it came within one turn: providers check its signature.
    Thinking {
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        content: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

impl Block {
    /// A text block.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// Pixels, inside the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ImageSource {
    Base64 { media_type: String, data: String },
}

/// The body of `POST /v1/messages`.
#[derive(Debug, Serialize)]
pub(crate) struct Request<'a> {
    /// A route of the router, not a model of a provider.
    pub(crate) model: &'a str,
    pub(crate) max_tokens: u32,
    pub(crate) system: Vec<SystemBlock<'a>>,
    pub(crate) messages: Vec<Value>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    pub(crate) tools: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_choice: Option<ToolChoice>,
    pub(crate) stream: bool,
}

/// A part of the system prompt.
#[derive(Debug, Serialize)]
pub(crate) struct SystemBlock<'a> {
    r#type: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

impl<'a> SystemBlock<'a> {
    /// A part that ends what providers may keep in their prompt cache.
    pub(crate) fn cached(text: &'a str) -> Self {
        let cache_control = Some(CacheControl {
            r#type: "ephemeral",
        });
        Self {
            r#type: "text",
            text,
            cache_control,
        }
    }
}

#[derive(Debug, Serialize)]
struct CacheControl {
    r#type: &'static str,
}

/// Whether the model may use tools; absent means that it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolChoice {
    None,
}

/// The messages as they are sent: what is before the last block's end may be kept in a prompt cache.
pub(crate) fn wire_messages(messages: &[Message]) -> Vec<Value> {
    let mut wire: Vec<_> = messages.iter().map(|message| json!(message)).collect();
    let last = wire
        .last_mut()
        .and_then(|last| last["content"].as_array_mut());
    if let Some(block) = last.and_then(|content| content.last_mut()) {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
    wire
}
