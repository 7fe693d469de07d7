//! Reads the usage out of an answer, whole or streamed, in either dialect.

use serde_json::Value;

use crate::dialect::Dialect;
use crate::estimate::text_tokens;
use crate::sse::Frame;
use crate::usage::Usage;

/// How a streamed answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Open,
    /// The provider said that it is finished.
    Complete,
    /// The provider said that it failed.
    Failed,
}

/// What was told of the output. The counts run: some providers tell one with each piece, and one after each round of tools that
/// they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing.
    Not,
    /// How much it was until then.
    SoFar,
    /// All of it, when the answer had stopped.
    All,
}

/// How often a provider used its own tools at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// How often it asked the model again.
    pub rounds: u64,
    /// The uses in all rounds.
    pub uses: u64,
}

/// Watches the events of one answer.
#[derive(Debug, Clone)]
pub struct Meter {
    dialect: Dialect,
    usage: Usage,
    progress: Progress,
    has_input: bool,
    output: Told,
    has_content: bool,
    has_thinking: bool,
    seen_output_tokens: u64,
    seen_uses: u64,
    seen_results: u64,
}

impl Meter {
    /// A meter for a stream in a dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            usage: Usage::default(),
            progress: Progress::Open,
            has_input: false,
            output: Told::Not,
            has_content: false,
            has_thinking: false,
            seen_output_tokens: 0,
            seen_uses: 0,
            seen_results: 0,
        }
    }

    /// A meter that has seen an answer that came whole.
    pub fn of_body(dialect: Dialect, body: &Value) -> Self {
        let mut meter = Self::new(dialect);
        meter.progress = Progress::Complete;
        let blocks = body["content"].as_array().into_iter().flatten();
        blocks.for_each(|block| meter.see(block));
        let choices = body["choices"].as_array().into_iter().flatten();
        choices.for_each(|choice| meter.see(&choice["message"]));
        meter.has_content = true;
        meter.report(&body["usage"]);
        meter.report_output(&body["usage"], true);
        meter
    }

    /// What was reported so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the input was reported: all of it that was read until now.
    pub fn has_input(&self) -> bool {
        self.has_input
    }

    /// Whether the final output was reported.
    pub fn has_output(&self) -> bool {
        match self.output {
            Told::Not => false,
            Told::SoFar => self.progress == Progress::Complete,
            Told::All => true,
        }
    }

    /// Whether any content came.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// A bound of the output that passed by.
    pub fn seen_output_tokens(&self) -> u64 {
        self.seen_output_tokens.max(self.usage.output_tokens)
    }

    /// Whether the model thought: then the output may be more than what passed by. Anthropic always shows that there was some,
    /// and of it a summary or nothing; in OpenAI's dialect some providers do.
    pub fn has_thinking(&self) -> bool {
        self.has_thinking
    }

    /// Whether anything of the answer came.
    pub fn has_begun(&self) -> bool {
        self.has_input || self.has_content || self.progress != Progress::Open
    }

    /// How often the provider used its own tools at most. One round more than was seen may have begun, unless it said that the
    /// answer ended and none was seen. A round that is open may use the tools side by side as often as they may be used at all.
    pub fn uses(&self) -> Uses {
        let is_open = self.progress == Progress::Open || self.seen_uses > self.seen_results;
        match self.seen_uses {
            0 if !is_open => Uses { rounds: 0, uses: 0 },
            seen => Uses {
                rounds: seen + 1,
                uses: if is_open { u64::MAX } else { seen + 1 },
            },
        }
    }

    /// How the answer stands.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Watches one event pass; true when it carries nothing but the usage.
    pub fn pass(&mut self, frame: &Frame) -> bool {
        if frame.data.is_empty() {
            return false;
        }
        if self.dialect == Dialect::OpenAiChat && frame.data.trim() == "[DONE]" {
            self.end(Progress::Complete);
            return false;
        }
        let Ok(data) = serde_json::from_str::<Value>(&frame.data) else {
            return false;
        };
        match self.dialect {
            Dialect::Anthropic => {
                self.pass_anthropic(&data);
                false
            }
            Dialect::OpenAiChat => self.pass_openai(&data),
        }
    }

    fn pass_anthropic(&mut self, data: &Value) {
        match data["type"].as_str().unwrap_or_default() {
            "message_start" => self.report(&data["message"]["usage"]),
            "content_block_start" => {
                self.go_on();
                self.see(&data["content_block"]);
            }
            "content_block_delta" => self.see(&data["delta"]),
            "message_delta" => {
                self.report(&data["usage"]);
                let has_stopped = data["delta"]["stop_reason"].is_string();
                self.report_output(&data["usage"], has_stopped);
            }
            "message_stop" => self.end(Progress::Complete),
            "error" => self.end(Progress::Failed),
            _ => {}
        }
    }

    fn pass_openai(&mut self, data: &Value) -> bool {
        if data["error"].is_object() {
            self.end(Progress::Failed);
            return false;
        }
        let choices = data["choices"].as_array().map_or(&[][..], Vec::as_slice);
        for choice in choices {
            self.see(&choice["delta"]);
        }
        let reports = data["usage"].is_object();
        self.report(&data["usage"]);
        let is_apart = reports && choices.is_empty();
        if !choices.is_empty() {
            self.go_on();
        }
        let has_stopped = choices
            .iter()
            .any(|choice| choice["finish_reason"].is_string());
        self.report_output(&data["usage"], is_apart || has_stopped);
        is_apart
    }

    fn end(&mut self, how: Progress) {
        if self.progress == Progress::Open {
            self.progress = how;
        }
    }

    fn report(&mut self, usage: &Value) {
        if !usage.is_object() {
            return;
        }
        let later = match self.dialect {
            Dialect::Anthropic => Usage::from_anthropic(usage),
            Dialect::OpenAiChat => Usage::from_openai(usage),
        };
        self.usage = match self.dialect {
            Dialect::Anthropic => self.usage.updated(later),
            Dialect::OpenAiChat => later,
        };
        let of_output = &usage["completion_tokens_details"];
        self.has_thinking |= of_output["reasoning_tokens"].as_u64() > Some(0);
        // No prompt is empty: a report without one reports nothing.
        self.has_input |= later.prompt_tokens() > 0;
    }

    fn report_output(&mut self, usage: &Value, has_stopped: bool) {
        let name = match self.dialect {
            Dialect::Anthropic => "output_tokens",
            Dialect::OpenAiChat => "completion_tokens",
        };
        if usage[name].is_u64() {
            self.output = if has_stopped { Told::All } else { Told::SoFar };
        }
    }

    /// More is written: what was told before is not all.
    fn go_on(&mut self) {
        if self.output == Told::All {
            self.output = Told::SoFar;
        }
    }

    /// Sees a part of what the model said, or of what its provider's tools found for it.
    fn see(&mut self, part: &Value) {
        let kind = part["type"].as_str().unwrap_or_default();
        self.has_thinking |= kind.contains("thinking");
        if kind == "server_tool_use" {
            self.seen_uses += 1;
            // What was told of the input is from before this use; the model reads all of it again.
            self.has_input = false;
        }
        if kind.ends_with("_tool_result") {
            // Input, which is counted by how often the tools were used.
            self.has_content = true;
            self.seen_results += 1;
            return;
        }
        let texts = part.as_object().into_iter().flatten();
        for (key, value) in texts.filter(|(key, _)| *key != "type" && *key != "role") {
            let tokens = match value {
                Value::String(text) => text_tokens(text),
                Value::Null => 0,
                other => text_tokens(&other.to_string()),
            };
            self.has_content |= tokens > 0 && key != "index";
            self.has_thinking |= key.starts_with("reasoning") && !is_empty(value);
            self.seen_output_tokens = self.seen_output_tokens.saturating_add(tokens);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
