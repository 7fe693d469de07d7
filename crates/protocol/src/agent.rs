//! What the sidecar and an agent with the `Http` adapter say to each other: `POST /v1/turn`, answered with NDJSON.

use carrel_core::event::ToolStatus;
use carrel_core::{MessageId, TurnId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/turn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnRequest {
    /// The turn.
    pub turn_id: TurnId,
    /// The message to answer.
    pub message: Message,
    /// Messages and replies that the workspace has lost; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<Exchange>,
}

/// A message for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub message_id: MessageId,
    /// The text.
    pub text: String,
    /// The files that came with it, written into the workspace.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// When it was accepted.
    pub sent_time: Timestamp,
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Where it lies, relative to the workspace.
    pub path: String,
}

/// A message and its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What the learner wrote.
    pub message: String,
    /// What was answered.
    pub reply: String,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// More of the reply.
    Text {
        /// The piece.
        text: String,
    },
    /// A tool use began or ended.
    Tool {
        /// The tool use within the turn.
        id: String,
        /// The tool's name.
        name: String,
        /// How far it is.
        status: ToolStatus,
        /// One line for people.
        #[serde(default)]
        summary: String,
    },
    /// What the agent is doing, for the learner to see while it waits.
    Status {
        /// One line.
        text: String,
    },
    /// A file of the reply.
    File {
        /// Its name.
        name: String,
        /// Its media type.
        media_type: String,
        /// Where it lies, relative to the workspace.
        path: String,
    },
    /// The turn ended well. The last line.
    Done,
    /// The turn ended badly. The last line.
    Error {
        /// A word for programs.
        code: String,
        /// A sentence for the learner.
        message: String,
        /// Whether sending it again may help.
        #[serde(default)]
        retryable: bool,
        /// What the operator should know; never shown to the learner.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
}
