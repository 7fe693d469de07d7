//! The two shapes of model API that are spoken, in and out.

use serde::{Deserialize, Serialize};

/// A shape of model API. Translation between them is not done: a request goes to a provider of its own dialect.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::EnumIter, strum::Display,
)]
pub enum Dialect {
    /// Anthropic Messages, `POST /v1/messages`.
    Anthropic,
    /// OpenAI Chat Completions, `POST /v1/chat/completions`.
    OpenAiChat,
}
