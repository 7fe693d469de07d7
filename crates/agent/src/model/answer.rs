//! Puts the events of a stream together into the model's message. Pure: bytes come from elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::failure::ApiError;
use super::{Block, Failure};

/// Most that one answer may hold, over all its blocks.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// One event of the stream. Unknown events, blocks and deltas are passed over, as the dialect asks.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    ContentBlockStart {
        index: u32,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u32,
        delta: Delta,
    },
    MessageDelta {
        delta: MessageDelta,
    },
    MessageStop,
    Error {
        error: ApiError,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names are the dialect's")]
pub(crate) enum Delta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    SignatureDelta {
        signature: String,
    },
    #[serde(other)]
    OtherDelta,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MessageDelta {
    stop_reason: Option<StopReason>,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopReason {
    ToolUse,
    MaxTokens,
    Refusal,
    /// `end_turn`, `stop_sequence`, and whatever comes to exist.
    #[serde(other)]
    Ended,
}

/// The model's message as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    blocks: BTreeMap<u32, Growing>,
    stop_reason: Option<StopReason>,
    ended: bool,
    bytes: usize,
}

#[derive(Debug)]
struct Growing {
    block: Block,
    /// The input of a tool use, as JSON text in pieces.
    json: String,
}

impl Answer {
    /// Takes one event; what is returned is new text for the learner.
    pub(crate) fn take(&mut self, event: Event) -> Result<Option<String>, Failure> {
        match event {
            Event::ContentBlockStart {
                index,
                content_block,
            } => return self.start(index, content_block),
            Event::ContentBlockDelta { index, delta } => return self.grow(index, delta),
            Event::MessageDelta { delta } => {
                self.stop_reason = delta.stop_reason.or(self.stop_reason);
            }
            Event::MessageStop => self.ended = true,
            Event::Error { error } => return Err(Failure::from_event(&error)),
            Event::Other => {}
        }
        Ok(None)
    }

    /// Whether the stream has said its last word.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The whole message. A stream that broke off is no answer.
    pub(crate) fn finish(self) -> Result<(Vec<Block>, StopReason), Failure> {
        let stop_reason = match (self.stop_reason, self.ended) {
            (Some(reason), _) => reason,
            (None, true) => StopReason::Ended,
            (None, false) => return Err(Failure::Unreachable("the answer broke off".into())),
        };
        let blocks = self.blocks.into_values().filter_map(Growing::finish);
        Ok((blocks.collect(), stop_reason))
    }

    fn start(&mut self, index: u32, content_block: Value) -> Result<Option<String>, Failure> {
        let Ok(block) = serde_json::from_value::<Block>(content_block) else {
            return Ok(None);
        };
        let text = match &block {
            Block::Text { text } if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        self.count(text.as_ref().map_or(64, String::len))?;
        let json = String::new();
        self.blocks.insert(index, Growing { block, json });
        Ok(text)
    }

    fn grow(&mut self, index: u32, delta: Delta) -> Result<Option<String>, Failure> {
        let Some(growing) = self.blocks.get_mut(&index) else {
            return Ok(None);
        };
        let (grown, more) = match (&mut growing.block, delta) {
            (Block::Text { text }, Delta::TextDelta { text: more }) => {
                text.push_str(&more);
                let length = more.len();
                (length, Some(more))
            }
            (Block::ToolUse { .. }, Delta::InputJsonDelta { partial_json }) => {
                growing.json.push_str(&partial_json);
                (partial_json.len(), None)
            }
            (Block::Thinking { thinking, .. }, Delta::ThinkingDelta { thinking: more }) => {
                thinking.push_str(&more);
                (more.len(), None)
            }
            (Block::Thinking { signature, .. }, Delta::SignatureDelta { signature: more }) => {
                signature.push_str(&more);
                (more.len(), None)
            }
            _ => (0, None),
        };
        self.count(grown)?;
        Ok(more.filter(|more| !more.is_empty()))
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes > MAX_ANSWER_BYTES {
            return Err(Failure::Refused("the answer is too long".into()));
        }
        Ok(())
    }
}

impl Growing {
    /// The block as it is kept; empty text is not (the dialect refuses it when it is sent back).
    fn finish(self) -> Option<Block> {
        match self.block {
            Block::Text { text } if text.is_empty() => None,
            Block::ToolUse { id, name, input } => {
                let input = if self.json.trim().is_empty() {
                    input
                } else {
                    // A call that was cut short is answered by the tool with an error.
                    serde_json::from_str(&self.json).unwrap_or(Value::Null)
                };
                Some(Block::ToolUse { id, name, input })
            }
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fed(events: Vec<Value>) -> (Answer, String) {
        let mut answer = Answer::default();
        let mut said = String::new();
        for event in events {
            let event = serde_json::from_value(event).unwrap();
            said.extend(answer.take(event).unwrap());
        }
        (answer, said)
    }

    #[test]
    fn interleaved_blocks_come_out_whole_and_in_order() {
        let (answer, said) = fed(vec![
            json!({"type": "message_start", "message": {"id": "m1"}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_start", "index": 1,
                "content_block": {"type": "tool_use", "id": "t1", "name": "read_file", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"path\":"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me "}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "\"a.md\"}"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "look."}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ]);
        assert_eq!(said, "Let me look.");
        let (blocks, reason) = answer.finish().unwrap();
        assert_eq!(reason, StopReason::ToolUse);
        assert_eq!(
            blocks,
            [
                Block::text("Let me look."),
                Block::ToolUse {
                    id: "t1".into(),
                    name: "read_file".into(),
                    input: json!({"path": "a.md"})
                }
            ]
        );
    }

    #[test]
    fn a_stream_that_breaks_off_is_no_answer() {
        let (answer, _) = fed(vec![
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Half"}}),
        ]);
        assert!(matches!(answer.finish(), Err(Failure::Unreachable(_))));
    }

    #[test]
    fn a_budget_that_ends_inside_a_stream_is_told_in_its_own_words() {
        let event =
            json!({"type": "error", "error": {"type": "billing_error", "message": "All spent."}});
        let failed = Answer::default().take(serde_json::from_value(event).unwrap());
        assert_eq!(failed, Err(Failure::BudgetSpent("All spent.".into())));
    }

    #[test]
    fn a_tool_call_whose_input_was_cut_short_has_no_input() {
        let (answer, _) = fed(vec![
            json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "tool_use", "id": "t2", "name": "remember", "input": {}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"note\": \"lik"}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}),
        ]);
        let (blocks, reason) = answer.finish().unwrap();
        assert_eq!(reason, StopReason::MaxTokens);
        assert!(matches!(
            &blocks[0],
            Block::ToolUse {
                input: Value::Null,
                ..
            }
        ));
    }
}
