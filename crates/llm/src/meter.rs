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

/// Watches the events of one answer.
#[derive(Debug, Clone)]
pub struct Meter {
    dialect: Dialect,
    usage: Usage,
    progress: Progress,
    has_input: bool,
    has_output: bool,
    has_content: bool,
    seen_output_tokens: u64,
}

impl Meter {
    /// A meter for a stream in a dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            usage: Usage::default(),
            progress: Progress::Open,
            has_input: false,
            has_output: false,
            has_content: false,
            seen_output_tokens: 0,
        }
    }

    /// A meter that has seen an answer that came whole.
    pub fn of_body(dialect: Dialect, body: &Value) -> Self {
        let mut meter = Self::new(dialect);
        meter.progress = Progress::Complete;
        meter.has_content = true;
        meter.report(&body["usage"]);
        meter.has_output = meter.has_input && meter.tells_output(&body["usage"]);
        if !meter.has_output {
            meter.seen_output_tokens = text_tokens(&body.to_string());
        }
        meter
    }

    /// What was reported so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the input was reported.
    pub fn has_input(&self) -> bool {
        self.has_input
    }

    /// Whether the final output was reported.
    pub fn has_output(&self) -> bool {
        self.has_output
    }

    /// Whether any content came.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// A bound of the output that passed by.
    pub fn seen_output_tokens(&self) -> u64 {
        self.seen_output_tokens.max(self.usage.output_tokens)
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
            "content_block_start" => self.see(&data["content_block"]),
            "content_block_delta" => self.see(&data["delta"]),
            "message_delta" => {
                self.report(&data["usage"]);
                self.has_output |= self.tells_output(&data["usage"]);
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
        if reports {
            self.report(&data["usage"]);
            self.has_output |= self.tells_output(&data["usage"]);
        }
        reports && choices.is_empty()
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
        // No prompt is empty: a report without one reports nothing.
        self.has_input = self.usage.prompt_tokens() > 0;
    }

    fn tells_output(&self, usage: &Value) -> bool {
        let name = match self.dialect {
            Dialect::Anthropic => "output_tokens",
            Dialect::OpenAiChat => "completion_tokens",
        };
        usage[name].is_u64()
    }

    fn see(&mut self, part: &Value) {
        let texts = part.as_object().into_iter().flatten();
        for (key, value) in texts.filter(|(key, _)| *key != "type" && *key != "role") {
            let tokens = match value {
                Value::String(text) => text_tokens(text),
                Value::Null => 0,
                other => text_tokens(&other.to_string()),
            };
            self.has_content |= tokens > 0 && key != "index";
            self.seen_output_tokens = self.seen_output_tokens.saturating_add(tokens);
        }
    }
}

#[cfg(test)]
mod tests;
