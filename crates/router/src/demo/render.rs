//! The stand-in's reply as the two dialects write it, whole or as events of a word each.

use carrel_llm::Dialect;
use carrel_llm::estimate::text_tokens;
use serde_json::{Value, json};

use super::tutor::{Call, Reply};

/// A reply and what is said around it.
pub(crate) struct Rendered<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) model: &'a str,
    /// The reply's place in the conversation, for ids that differ.
    pub(crate) place: usize,
    pub(crate) input_tokens: u64,
    pub(crate) max_tokens: u64,
    pub(crate) reply: Reply,
}

impl Rendered<'_> {
    /// As one JSON document.
    pub(crate) fn whole(self) -> String {
        let (words, is_cut) = self.words();
        let text = words.concat();
        let call = self.reply.call.as_ref().filter(|_| !is_cut);
        match self.dialect {
            Dialect::Anthropic => {
                let mut content = Vec::new();
                if !text.is_empty() {
                    content.push(json!({"type": "text", "text": text}));
                }
                content.extend(call.map(|call| {
                    json!({"type": "tool_use", "id": self.call_id(), "name": call.name, "input": call.input})
                }));
                let mut message = self.message(&self.usage(&words));
                message["content"] = content.into();
                message["stop_reason"] = self.stop_reason(is_cut).into();
                message.to_string()
            }
            Dialect::OpenAiChat => {
                let mut message =
                    json!({"role": "assistant", "content": (!text.is_empty()).then_some(text)});
                if let Some(call) = call {
                    message["tool_calls"] = json!([self.tool_call(call)]);
                }
                let choice = json!({"index": 0, "message": message, "finish_reason": self.stop_reason(is_cut)});
                json!({
                    "id": self.id("chatcmpl"), "object": "chat.completion", "created": 0, "model": self.model,
                    "choices": [choice], "usage": self.usage(&words),
                })
                .to_string()
            }
        }
    }

    /// As the events of a stream.
    pub(crate) fn events(self) -> Vec<String> {
        match self.dialect {
            Dialect::Anthropic => self.anthropic_events(),
            Dialect::OpenAiChat => self.openai_events(),
        }
    }

    fn anthropic_events(&self) -> Vec<String> {
        let (words, is_cut) = self.words();
        let mut events = Vec::new();
        let mut push = |data: Value| {
            let kind = data["type"].as_str().unwrap_or_default();
            events.push(format!("event: {kind}\ndata: {data}\n\n"));
        };
        push(json!({"type": "message_start", "message": self.message(&self.usage(&[]))}));
        let mut index = 0;
        if !words.is_empty() {
            push(
                json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
            );
            for word in &words {
                push(
                    json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": word}}),
                );
            }
            push(json!({"type": "content_block_stop", "index": index}));
            index += 1;
        }
        if let Some(call) = self.reply.call.as_ref().filter(|_| !is_cut) {
            let block =
                json!({"type": "tool_use", "id": self.call_id(), "name": call.name, "input": {}});
            push(json!({"type": "content_block_start", "index": index, "content_block": block}));
            for part in Self::arguments(call) {
                push(
                    json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": part}}),
                );
            }
            push(json!({"type": "content_block_stop", "index": index}));
        }
        let delta = json!({"stop_reason": self.stop_reason(is_cut), "stop_sequence": null});
        push(json!({"type": "message_delta", "delta": delta, "usage": self.usage(&words)}));
        push(json!({"type": "message_stop"}));
        events
    }

    fn openai_events(&self) -> Vec<String> {
        let (words, is_cut) = self.words();
        let chunk = |choices: Value, usage: Value| {
            let data = json!({
                "id": self.id("chatcmpl"), "object": "chat.completion.chunk", "created": 0, "model": self.model,
                "choices": choices, "usage": usage,
            });
            format!("data: {data}\n\n")
        };
        let delta = |delta: Value, finish: Option<&str>| {
            chunk(
                json!([{"index": 0, "delta": delta, "finish_reason": finish}]),
                Value::Null,
            )
        };
        let mut events = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        events.extend(
            words
                .iter()
                .map(|word| delta(json!({"content": word}), None)),
        );
        if let Some(call) = self.reply.call.as_ref().filter(|_| !is_cut) {
            let mut head = self.tool_call(call);
            head["function"]["arguments"] = "".into();
            events.push(delta(json!({"tool_calls": [head]}), None));
            for part in Self::arguments(call) {
                let function = json!({"arguments": part});
                events.push(delta(
                    json!({"tool_calls": [{"index": 0, "function": function}]}),
                    None,
                ));
            }
        }
        events.push(delta(json!({}), Some(self.stop_reason(is_cut))));
        events.push(chunk(json!([]), self.usage(&words)));
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    /// The text in pieces of a word, as far as the limit of output goes; whether it was cut.
    fn words(&self) -> (Vec<&str>, bool) {
        let mut left = self.max_tokens;
        let mut words = Vec::new();
        for word in self.reply.text.split_inclusive(' ') {
            let Some(rest) = left.checked_sub(tokens(word)) else {
                return (words, true);
            };
            left = rest;
            words.push(word);
        }
        (words, false)
    }

    fn usage(&self, words: &[&str]) -> Value {
        let arguments = self.reply.call.as_ref().map(|call| call.input.to_string());
        let spoken: u64 = words.iter().map(|word| tokens(word)).sum();
        let called = arguments.map_or(0, |arguments| tokens(&arguments));
        let output = (spoken + called).clamp(1, self.max_tokens);
        match self.dialect {
            Dialect::Anthropic => {
                json!({"input_tokens": self.input_tokens, "output_tokens": output})
            }
            Dialect::OpenAiChat => json!({
                "prompt_tokens": self.input_tokens, "completion_tokens": output,
                "total_tokens": self.input_tokens + output,
            }),
        }
    }

    fn message(&self, usage: &Value) -> Value {
        json!({
            "id": self.id("msg"), "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        })
    }

    fn stop_reason(&self, is_cut: bool) -> &'static str {
        match (self.dialect, is_cut, self.reply.call.is_some()) {
            (Dialect::Anthropic, true, _) => "max_tokens",
            (Dialect::Anthropic, false, true) => "tool_use",
            (Dialect::Anthropic, false, false) => "end_turn",
            (Dialect::OpenAiChat, true, _) => "length",
            (Dialect::OpenAiChat, false, true) => "tool_calls",
            (Dialect::OpenAiChat, false, false) => "stop",
        }
    }

    fn tool_call(&self, call: &Call) -> Value {
        let function = json!({"name": call.name, "arguments": call.input.to_string()});
        json!({"index": 0, "id": self.call_id(), "type": "function", "function": function})
    }

    /// The arguments in pieces, as real providers send them.
    fn arguments(call: &Call) -> Vec<String> {
        let text = call.input.to_string();
        text.split_inclusive(' ').map(str::to_owned).collect()
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}_demo_{:04}", self.place)
    }

    fn call_id(&self) -> String {
        match self.dialect {
            Dialect::Anthropic => self.id("toolu"),
            Dialect::OpenAiChat => self.id("call"),
        }
    }
}

/// The estimate without its margin.
fn tokens(text: &str) -> u64 {
    (text_tokens(text) * 2).div_ceil(3)
}
