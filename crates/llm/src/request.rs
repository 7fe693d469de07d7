//! A request of either dialect, parsed and checked as far as the router needs it. The router calls this and nothing of
//! `anthropic` or `openai`; the provider checks the rest and words its own errors.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::anthropic::{Message, MessagesRequest};
use crate::dialect::Dialect;
use crate::openai::ChatRequest;
use crate::server_tools::{bound_uses, is_bounded};

const MAX_MODEL_BYTES: usize = 200;
/// Fields that raise the price of a call and have no place in the price table: dearer tiers and places, searches and
/// tools that the provider runs and bills, input that it fetches, output that is billed although it was not written.
const SURCHARGES: [&str; 8] = [
    "service_tier",
    "speed",
    "inference_geo",
    "provider",
    "plugins",
    "web_search_options",
    "mcp_servers",
    "prediction",
];
/// Fields by which a request turns to other models than the one that it was routed to.
const DETOURS: [&str; 4] = ["models", "route", "fallbacks", "preset"];

/// Why a request cannot be routed; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not in the dialect's shape.
    #[error("{0}")]
    Shape(String),
    /// A field is out of its bounds.
    #[error("{field}: {must}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A tool that the provider runs, at a price that is not known before, where a budget has to hold.
    #[error(
        "tools: '{0}' is run by the provider at a cost that no budget can hold; leave it out, or have the operator lift the budget"
    )]
    UnboundedTool(String),
}

/// A request in its own dialect.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Anthropic Messages.
    Messages(MessagesRequest),
    /// OpenAI Chat Completions.
    Chat(ChatRequest),
}

impl Request {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// What is wrong with it, in words for the client.
    pub fn parse(dialect: Dialect, body: &[u8]) -> Result<Self, Error> {
        let request = match dialect {
            Dialect::Anthropic => Self::Messages(read(body)?),
            Dialect::OpenAiChat => Self::Chat(read(body)?),
        };
        request.check()?;
        require(
            request.output_limit() != Some(0),
            "max_tokens",
            "must be given and at least 1",
        )?;
        Ok(request)
    }

    /// Reads and checks the body of `POST /v1/messages/count_tokens`, which bounds no output.
    ///
    /// # Errors
    /// What is wrong with it, in words for the client.
    pub fn parse_to_count(body: &[u8]) -> Result<Self, Error> {
        let request = Self::Messages(read(body)?);
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), Error> {
        let model = self.model();
        require(!model.is_empty(), "model", "must not be empty")?;
        require(
            model.len() <= MAX_MODEL_BYTES && !model.contains(char::is_control),
            "model",
            "must be at most 200 printable characters",
        )?;
        require(
            !model.contains("://"),
            "model",
            "must be a route or 'provider/model', not a URL",
        )?;
        require(
            !self.messages().is_empty(),
            "messages",
            "must have at least one message",
        )?;
        require(self.answers() > 0, "n", "must be at least 1")
    }

    /// The dialect that was spoken.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Messages(_) => Dialect::Anthropic,
            Self::Chat(_) => Dialect::OpenAiChat,
        }
    }

    /// What the client calls the model.
    pub fn model(&self) -> &str {
        match self {
            Self::Messages(request) => &request.model,
            Self::Chat(request) => &request.model,
        }
    }

    /// Names the model as its provider does.
    pub fn set_model(&mut self, model: &str) {
        match self {
            Self::Messages(request) => model.clone_into(&mut request.model),
            Self::Chat(request) => model.clone_into(&mut request.model),
        }
    }

    /// The conversation.
    pub fn messages(&self) -> &[Message] {
        match self {
            Self::Messages(request) => &request.messages,
            Self::Chat(request) => &request.messages,
        }
    }

    /// What the model may call, in the dialect's own shape.
    pub fn tools(&self) -> &[Value] {
        let tools = match self {
            Self::Messages(request) => &request.tools,
            Self::Chat(request) => &request.tools,
        };
        tools.as_deref().unwrap_or_default()
    }

    /// Whether the answer is a stream.
    pub fn streams(&self) -> bool {
        let stream = match self {
            Self::Messages(request) => request.stream,
            Self::Chat(request) => request.stream,
        };
        stream == Some(true)
    }

    /// The most tokens of one answer, if the request bounds it.
    pub fn output_limit(&self) -> Option<u64> {
        match self {
            Self::Messages(request) => Some(request.max_tokens),
            Self::Chat(request) => request.output_limit(),
        }
    }

    /// Bounds one answer.
    pub fn set_output_limit(&mut self, limit: u64) {
        match self {
            Self::Messages(request) => request.max_tokens = limit,
            Self::Chat(request) => request.set_output_limit(limit),
        }
    }

    /// The tokens set aside for thinking, under which the limit may not be lowered.
    pub fn thinking_budget(&self) -> u64 {
        match self {
            Self::Messages(request) => request.thinking_budget(),
            Self::Chat(_) => 0,
        }
    }

    /// Whether the model may think although the answer shows no sign of it; `unasked`: whether it thinks when nobody says
    /// whether it should.
    pub fn thinks_unseen(&self, unasked: bool) -> bool {
        match self {
            Self::Messages(_) => false,
            Self::Chat(request) => request.asks_for_thinking().unwrap_or(unasked),
        }
    }

    /// How many answers are asked for.
    pub fn answers(&self) -> u64 {
        match self {
            Self::Messages(_) => 1,
            Self::Chat(request) => request.n.unwrap_or(1),
        }
    }

    /// Takes out what would raise the price, so that the price table holds, and bounds the uses of tools that the provider
    /// runs. For callers with a budget.
    ///
    /// # Errors
    /// A tool whose worst is not known. Without it the model would do something else than what was asked for, so it is not
    /// taken out.
    pub fn strip_surcharges(&mut self) -> Result<(), Error> {
        if let Some(tool) = self.tools().iter().find(|tool| !is_bounded(tool)) {
            let kind = tool["type"].as_str().unwrap_or_default();
            return Err(Error::UnboundedTool(kind.chars().take(80).collect()));
        }
        self.strip(&SURCHARGES);
        let (tools, rest) = match self {
            Self::Messages(request) => (&mut request.tools, &mut request.rest),
            Self::Chat(request) => (&mut request.tools, &mut request.rest),
        };
        tools.iter_mut().flatten().for_each(bound_uses);
        // Compaction is one more pass over the prompt, with output of its own that no limit bounds.
        let management = rest.get_mut("context_management");
        if let Some(Value::Array(edits)) = management.and_then(|it| it.get_mut("edits")) {
            let compacts = |edit: &Value| {
                edit["type"]
                    .as_str()
                    .is_some_and(|kind| kind.starts_with("compact"))
            };
            edits.retain(|edit| !compacts(edit));
        }
        Ok(())
    }

    /// Takes out what would make the provider use another model, with tools that do; else neither an allow-list nor a
    /// price holds. For callers who may not use every model.
    pub fn strip_detours(&mut self) {
        self.strip(&DETOURS);
        let tools = match self {
            Self::Messages(request) => &mut request.tools,
            Self::Chat(request) => &mut request.tools,
        };
        if let Some(tools) = tools {
            tools.retain(|tool| tool.get("model").is_none());
        }
    }

    fn strip(&mut self, fields: &[&str]) {
        let rest = match self {
            Self::Messages(request) => &mut request.rest,
            Self::Chat(request) => &mut request.rest,
        };
        for field in fields {
            rest.shift_remove(*field);
        }
    }

    /// Makes a streaming provider report its usage; true when the client had not asked for it, so that the chunk
    /// which carries it is to be kept from the client.
    pub fn ask_for_usage(&mut self) -> bool {
        match self {
            Self::Messages(_) => false,
            Self::Chat(request) => {
                let hidden = request.stream == Some(true) && !request.asks_for_usage();
                request.ask_for_usage();
                hidden
            }
        }
    }

    /// The body to send.
    pub fn to_body(&self) -> Vec<u8> {
        let written = match self {
            Self::Messages(request) => serde_json::to_vec(request),
            Self::Chat(request) => serde_json::to_vec(request),
        };
        written.expect("JSON values with string keys always serialise")
    }
}

fn require(holds: bool, field: &'static str, must: &'static str) -> Result<(), Error> {
    holds.then_some(()).ok_or(Error::Field { field, must })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Shape(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(dialect: Dialect, body: &Value) -> Result<Request, Error> {
        Request::parse(dialect, body.to_string().as_bytes())
    }

    #[test]
    fn unknown_fields_and_the_order_of_a_schema_survive_the_way_through() {
        let body = json!({
            "model": "default", "max_tokens": 7, "messages": [{"role": "user", "content": "hi", "x": 1}],
            "tools": [{"name": "t", "input_schema": {"zebra": 1, "apple": 2, "mango": 3}}],
            "output_config": {"effort": "high"}, "context_management": {"edits": [1]},
        });
        let mut request = parse(Dialect::Anthropic, &body).unwrap();
        request.set_model("claude-sonnet-5");
        let sent: Value = serde_json::from_slice(&request.to_body()).unwrap();
        let mut expected = body;
        expected["model"] = json!("claude-sonnet-5");
        assert_eq!(sent, expected);
        let text = String::from_utf8(request.to_body()).unwrap();
        assert!(
            text.contains(r#"{"zebra":1,"apple":2,"mango":3}"#),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_routed_is_refused_with_the_fields_name() {
        let say = json!([{"role": "user", "content": "hi"}]);
        for (body, names) in [
            (json!({"max_tokens": 1, "messages": say}), "model"),
            (json!({"model": "m", "messages": say}), "max_tokens"),
            (
                json!({"model": "", "max_tokens": 1, "messages": say}),
                "model",
            ),
            (
                json!({"model": "http://x/y", "max_tokens": 1, "messages": say}),
                "URL",
            ),
            (
                json!({"model": "m", "max_tokens": 0, "messages": say}),
                "max_tokens",
            ),
            (
                json!({"model": "m", "max_tokens": 1, "messages": []}),
                "messages",
            ),
            (
                json!({"model": "m", "max_tokens": -4, "messages": say}),
                "u64",
            ),
        ] {
            let error = parse(Dialect::Anthropic, &body).unwrap_err().to_string();
            assert!(error.contains(names), "{error} should name {names}");
        }
        assert!(Request::parse(Dialect::OpenAiChat, b"{\"model\":").is_err());
    }

    #[test]
    fn an_output_limit_is_written_in_the_field_that_the_client_used() {
        let say = json!([{"role": "user", "content": "hi"}]);
        for (fields, field) in [
            (json!({"max_tokens": 900}), "max_tokens"),
            (
                json!({"max_completion_tokens": 800}),
                "max_completion_tokens",
            ),
            (json!({}), "max_completion_tokens"),
        ] {
            let mut body = json!({"model": "m", "messages": say});
            body.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            let mut request = parse(Dialect::OpenAiChat, &body).unwrap();
            request.set_output_limit(33);
            let sent: Value = serde_json::from_slice(&request.to_body()).unwrap();
            assert_eq!(sent[field], 33, "{sent}");
            assert_eq!(request.output_limit(), Some(33));
        }
    }

    #[test]
    fn usage_is_asked_for_and_hidden_only_from_those_who_did_not_ask() {
        let mut body = json!({"model": "m", "stream": true, "messages": [{"role": "user"}]});
        let mut request = parse(Dialect::OpenAiChat, &body).unwrap();
        assert!(request.ask_for_usage(), "the client did not ask");
        assert!(!request.ask_for_usage(), "now it is asked for");
        body["stream"] = json!(false);
        let mut request = parse(Dialect::OpenAiChat, &body).unwrap();
        assert!(!request.ask_for_usage());
        assert!(
            !String::from_utf8(request.to_body())
                .unwrap()
                .contains("stream_options")
        );
    }

    #[test]
    fn thinking_that_nobody_sees_is_what_was_asked_for_or_what_the_model_does_unasked() {
        let thinks = |dialect, field: &str, value: Value| {
            let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user"}], field: value});
            let request = parse(dialect, &body).unwrap();
            [false, true].map(|unasked| request.thinks_unseen(unasked))
        };
        let chat = |field, value| thinks(Dialect::OpenAiChat, field, value);
        for (field, value) in [
            ("reasoning_effort", json!("minimal")),
            ("reasoning", json!({"max_tokens": 99})),
            ("include_reasoning", json!(false)),
            ("thinking", json!({"type": "enabled"})),
            ("chat_template_kwargs", json!({"enable_thinking": true})),
        ] {
            assert_eq!(chat(field, value), [true, true], "{field}");
        }
        for (field, value) in [
            ("reasoning_effort", json!("none")),
            ("reasoning", json!({"enabled": false})),
            ("thinking", json!({"type": "disabled"})),
            ("enable_thinking", json!(false)),
        ] {
            assert_eq!(chat(field, value), [false, false], "{field}");
        }
        for (field, value) in [("top_k", json!(3)), ("reasoning_effort", Value::Null)] {
            assert_eq!(chat(field, value), [false, true], "{field}");
        }
        let shown = json!({"type": "adaptive"});
        assert_eq!(
            thinks(Dialect::Anthropic, "thinking", shown),
            [false, false]
        );
    }

    #[test]
    fn surcharges_are_taken_out() {
        let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user"}],
            "service_tier": "priority", "speed": "fast", "inference_geo": "us", "top_k": 3,
            "context_management": {"edits": [{"type": "compact_20260112"}, {"type": "clear_thinking_20251015"}]},
            "tools": [{"name": "a", "input_schema": {}}, {"type": "custom", "name": "b"}, {"type": "bash_20250124", "name": "c"},
                {"type": "web_fetch_20250910", "name": "e"}, {"type": "tool_search_tool_regex_20251119", "name": "f"}]});
        let mut request = parse(Dialect::Anthropic, &body).unwrap();
        request.strip_surcharges().unwrap();
        let sent: Value = serde_json::from_slice(&request.to_body()).unwrap();
        assert_eq!(sent["top_k"], 3);
        for field in SURCHARGES {
            assert_eq!(sent[field], Value::Null);
        }
        let names = sent["tools"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c", "e", "f"]);
        assert_eq!(sent["tools"][3]["max_uses"], 5);
        for other in [0, 4] {
            assert_eq!(sent["tools"][other].get("max_uses"), None);
        }
        assert_eq!(
            sent["context_management"]["edits"],
            json!([{"type": "clear_thinking_20251015"}])
        );
    }

    #[test]
    fn a_tool_that_cannot_be_bounded_is_refused_by_its_name() {
        for kind in [
            "code_execution_20250825",
            "mcp_toolset",
            "openrouter:web_search",
        ] {
            let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user"}],
                "tools": [{"name": "a", "input_schema": {}}, {"type": kind}]});
            let mut request = parse(Dialect::Anthropic, &body).unwrap();
            let before = request.clone();
            let error = request.strip_surcharges().unwrap_err();
            assert_eq!(error, Error::UnboundedTool(kind.to_owned()));
            assert_eq!(request, before);
        }
    }
}
