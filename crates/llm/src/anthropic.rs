//! The request of Anthropic Messages: what the router must know typed, everything else kept as it came.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /v1/messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessagesRequest {
    /// A route name or `provider/model` on the way in, the provider's own name on the way out.
    pub model: String,
    /// The most tokens of output; 0 where it is not given, which only counting allows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_tokens: u64,
    /// The conversation; roles `user`, `assistant` and, mid-conversation, `system`.
    pub messages: Vec<Message>,
    /// Whether the answer is a stream of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What the model may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// `{type: enabled, budget_tokens}`, `{type: adaptive}` or `{type: disabled}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Value>,
    /// `system` and every field that is not named above.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One message of either dialect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// `content` and whatever else came with it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Message {
    /// What is said: a text, an array of blocks, or null.
    pub fn content(&self) -> &Value {
        self.rest.get("content").unwrap_or(&Value::Null)
    }
}

impl MessagesRequest {
    /// The tokens set aside for thinking, which `max_tokens` must exceed; 0 when the model decides or does not think.
    pub fn thinking_budget(&self) -> u64 {
        let thinking = self.thinking.as_ref();
        thinking
            .filter(|thinking| thinking["type"] == "enabled")
            .and_then(|thinking| thinking["budget_tokens"].as_u64())
            .unwrap_or(0)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
