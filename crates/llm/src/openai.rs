//! The request of OpenAI Chat Completions: what the router must know typed, everything else kept as it came.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::anthropic::Message;

/// `POST /v1/chat/completions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// A route name or `provider/model` on the way in, the provider's own name on the way out.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Whether the answer is a stream of chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// `include_usage` and what else a stream may be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<Map<String, Value>>,
    /// The most tokens of output; older models and most other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The most tokens of output, thinking included; newer models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// How many answers are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// What the model may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// Every field that is not named above.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl ChatRequest {
    /// The most tokens of one answer, if the request bounds it.
    pub fn output_limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Bounds one answer, in the field that the client used.
    pub fn set_output_limit(&mut self, limit: u64) {
        if self.max_tokens.is_some() && self.max_completion_tokens.is_none() {
            self.max_tokens = Some(limit);
        } else {
            self.max_tokens = None;
            self.max_completion_tokens = Some(limit);
        }
    }

    /// Whether the request asks the model to think, or not to; `None` when it leaves that to the model. Each provider has a
    /// field of its own for it.
    pub fn asks_for_thinking(&self) -> Option<bool> {
        const FIELDS: [&str; 5] = [
            "reasoning_effort",
            "reasoning",
            "include_reasoning",
            "thinking",
            "enable_thinking",
        ];
        let templates = self.rest.get("chat_template_kwargs");
        let templates = templates.and_then(Value::as_object);
        let fields = self.rest.iter().chain(templates.into_iter().flatten());
        let asked =
            fields.filter(|(name, value)| FIELDS.contains(&name.as_str()) && !value.is_null());
        // What is only not to be shown is thought all the same.
        asked
            .map(|(name, value)| name == "include_reasoning" || !is_off(value))
            .reduce(|one, other| one || other)
    }

    /// Whether the client itself asked for the chunk that carries the usage.
    pub fn asks_for_usage(&self) -> bool {
        let asked = self.stream_options.as_ref();
        asked.and_then(|options| options.get("include_usage")?.as_bool()) == Some(true)
    }

    /// Makes a streaming provider report its usage.
    pub fn ask_for_usage(&mut self) {
        if self.stream == Some(true) {
            self.stream_options
                .get_or_insert_default()
                .insert("include_usage".to_owned(), Value::Bool(true));
        }
    }
}

fn is_off(thinking: &Value) -> bool {
    let says_no = |value: &Value| value == false || value == "none" || value == "disabled";
    says_no(thinking)
        || ["enabled", "effort", "type"]
            .iter()
            .any(|field| says_no(&thinking[*field]))
}
