//! A request of either dialect as the stand-in sees it: what it was told, who said what, what it may call.

use carrel_llm::Request;
use carrel_llm::anthropic::Message;
use serde_json::Value;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Conversation {
    /// The system prompt, also what of it stands among the messages.
    pub(crate) system: String,
    /// In order.
    pub(crate) said: Vec<Said>,
    /// Names of tools.
    pub(crate) tools: Vec<String>,
}

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// By the learner.
    Learner(String),
    /// By the tutor, and which tools it called.
    Tutor { text: String, calls: Vec<String> },
    /// What a tool answered.
    Result { content: String, is_error: bool },
}

impl Conversation {
    /// Reads a request.
    pub(crate) fn of(request: &Request) -> Self {
        let mut conversation = Self {
            tools: request.tools().iter().filter_map(tool_name).collect(),
            ..Self::default()
        };
        if let Request::Messages(request) = request
            && let Some(system) = request.rest.get("system")
        {
            conversation.system = text_of(system);
        }
        for message in request.messages() {
            conversation.hear(message);
        }
        conversation
    }

    fn hear(&mut self, message: &Message) {
        let content = message.content();
        match message.role.as_str() {
            "system" | "developer" => {
                self.system.push('\n');
                self.system.push_str(&text_of(content));
            }
            "assistant" => {
                let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
                let used = blocks.iter().filter(|block| block["type"] == "tool_use");
                let called = message.rest.get("tool_calls").and_then(Value::as_array);
                let calls = used
                    .filter_map(|block| block["name"].as_str())
                    .chain(
                        called
                            .into_iter()
                            .flatten()
                            .filter_map(|call| call["function"]["name"].as_str()),
                    )
                    .map(str::to_owned)
                    .collect();
                self.said.push(Said::Tutor {
                    text: text_of(content),
                    calls,
                });
            }
            "tool" => self.said.push(Said::Result {
                content: text_of(content),
                is_error: false,
            }),
            _ => {
                let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
                let results = blocks.iter().filter(|block| block["type"] == "tool_result");
                self.said.extend(results.map(|block| Said::Result {
                    content: text_of(&block["content"]),
                    is_error: block["is_error"] == true,
                }));
                let text = text_of(content);
                if !text.is_empty() {
                    self.said.push(Said::Learner(text));
                }
            }
        }
    }

    /// What the learner said, oldest first.
    pub(crate) fn learner(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.said.iter().filter_map(|said| match said {
            Said::Learner(text) => Some(text.as_str()),
            Said::Tutor { .. } | Said::Result { .. } => None,
        })
    }

    /// The tutor's last words.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.said.iter().rev().find_map(|said| match said {
            Said::Tutor { text, .. } if !text.is_empty() => Some(text.as_str()),
            Said::Learner(_) | Said::Tutor { .. } | Said::Result { .. } => None,
        })
    }

    /// Whether a tool is offered.
    pub(crate) fn offers(&self, tool: &str) -> bool {
        self.tools.iter().any(|offered| offered == tool)
    }
}

fn tool_name(tool: &Value) -> Option<String> {
    let name = tool["name"]
        .as_str()
        .or_else(|| tool["function"]["name"].as_str())?;
    Some(name.to_owned())
}

/// The text of a content: a string, or its text blocks.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
