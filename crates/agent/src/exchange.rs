//! The conversation of one turn: the model speaks, uses tools, speaks again, until it has no more to
//! say or has taken all its steps. Whole steps go into the transcript; text goes out as it comes.

use std::time::Duration;

use carrel_core::TurnId;
use carrel_core::event::ToolStatus;
use carrel_protocol::agent::Line;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use crate::model::{Answer, Block, Failure, Message, Request, Role, StopReason, SystemBlock};
use crate::model::{ToolChoice, wire_messages};
use crate::tools::{self, Call};
use crate::transcript::{Entry, Transcript};
use crate::tutor::Tutor;
use crate::{prompt, workspace};

/// Calls of the model in one turn; in the last it may not use tools.
const MAX_STEPS: u32 = 12;
const MAX_TOKENS: u32 = 4_096;
/// Another try begins only this long after the first began, so that a model that cannot be
/// reached fails the turn while the learner still waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_TRIES: u32 = 4;
/// The route of the router that the tutor asks for.
pub(crate) const MODEL: &str = "default";

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Answered,
    Stopped,
    Failed(Failure),
}

/// One turn's conversation. What was said survives when its future is dropped.
pub(crate) struct Exchange<'a> {
    tutor: &'a Tutor,
    lines: &'a Sender<Line>,
    turn_id: TurnId,
    transcript: Transcript,
    about: String,
    tools: Vec<Value>,
    messages: Vec<Message>,
    /// Text of the step that is not in the transcript yet.
    unfinished: String,
    has_spoken: bool,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        tutor: &'a Tutor,
        lines: &'a Sender<Line>,
        turn_id: TurnId,
        transcript: Transcript,
        about: String,
        pictures: Vec<Block>,
    ) -> Self {
        let mut messages = transcript.messages(tutor.history_tokens * 2);
        if let Some(asked) = messages.last_mut() {
            asked.content.splice(0..0, pictures);
        }
        Self {
            tutor,
            lines,
            turn_id,
            transcript,
            about,
            tools: tools::definitions(),
            messages,
            unfinished: String::new(),
            has_spoken: false,
        }
    }

    /// The transcript, and what was said since its last line.
    pub(crate) fn into_parts(self) -> (Transcript, String) {
        (self.transcript, self.unfinished)
    }

    /// Goes through the turn.
    ///
    /// # Cancel safety
    /// Dropping it ends the model's call; [`Exchange::into_parts`] has what was said.
    pub(crate) async fn hold(&mut self) -> Result<Ended, workspace::Error> {
        for step in 1..=MAX_STEPS {
            let tool_choice = (step == MAX_STEPS).then_some(ToolChoice::None);
            let (mut blocks, reason) = match self.patient_step(tool_choice).await {
                Ok(answer) => answer,
                Err(failure) => return Ok(Ended::Failed(failure)),
            };
            if tool_choice.is_some() || reason == StopReason::Refusal {
                blocks.retain(|block| !matches!(block, Block::ToolUse { .. }));
            }
            let results = self.use_tools(&blocks).await;
            if results.is_empty() {
                self.close(&mut blocks, reason).await;
                self.keep(blocks, results)?;
                return Ok(Ended::Answered);
            }
            self.keep(blocks, results)?;
        }
        Ok(Ended::Answered)
    }

    /// One call of the model, tried again while the learner has seen nothing of it.
    async fn patient_step(
        &mut self,
        tool_choice: Option<ToolChoice>,
    ) -> Result<(Vec<Block>, StopReason), Failure> {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let failure = match self.step(tool_choice).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let last = tries + 1 == MAX_TRIES || !self.unfinished.is_empty();
            let wait = match failure.retry_after(tries) {
                Some(wait) if !last && began.elapsed() + wait < PATIENCE => wait,
                _ if matches!(failure, Failure::TooLong(_)) && self.forget_older() => {
                    Duration::ZERO
                }
                _ => return Err(failure),
            };
            tracing::warn!(turn.id = %self.turn_id, error = %failure, "trying the model again");
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    async fn step(
        &mut self,
        tool_choice: Option<ToolChoice>,
    ) -> Result<(Vec<Block>, StopReason), Failure> {
        let request = Request {
            model: MODEL,
            max_tokens: MAX_TOKENS,
            system: vec![
                SystemBlock::cached(prompt::CHARACTER),
                SystemBlock::cached(&self.about),
            ],
            messages: wire_messages(&self.messages),
            tools: &self.tools,
            tool_choice,
            stream: true,
        };
        let mut events = self.tutor.model.stream(&request).await?;
        let mut answer = Answer::default();
        while let Some(event) = events.next().await {
            if let Some(text) = answer.take(event?)? {
                self.say(text).await;
            }
            if answer.is_ended() {
                break;
            }
        }
        answer.finish()
    }

    /// Runs what the model asked for, one after the other, and shows it to the learner.
    async fn use_tools(&mut self, blocks: &[Block]) -> Vec<Block> {
        let mut results = Vec::new();
        for block in blocks {
            let Block::ToolUse { id, name, input } = block else {
                continue;
            };
            let result = match Call::parse(name, input) {
                Ok(call) => self.use_tool(id, name, call).await,
                Err(error) => Err(error),
            };
            let (content, is_error) = match result {
                Ok(content) => (content, false),
                Err(error) => (error.to_string(), true),
            };
            results.push(Block::ToolResult {
                tool_use_id: id.clone(),
                content,
                is_error,
            });
        }
        results
    }

    async fn use_tool(&self, id: &str, name: &str, call: Call) -> Result<String, tools::Error> {
        let show = |status, summary: String| {
            self.send(Line::Tool {
                id: id.to_owned(),
                name: name.to_owned(),
                status,
                summary,
            })
        };
        let summary = call.summary();
        show(ToolStatus::Started, summary.clone()).await;
        let workspace = self.tutor.workspace.clone();
        let ran = tokio::task::spawn_blocking(move || call.run(&workspace)).await;
        let outcome = ran.unwrap_or_else(|_| Err(tools::Error::Limit("the tool broke".into())));
        match outcome {
            Ok(outcome) => {
                if let Some(file) = outcome.given {
                    self.send(Line::File {
                        name: file.name,
                        media_type: file.media_type.to_owned(),
                        path: file.path,
                    })
                    .await;
                }
                show(ToolStatus::Done, summary).await;
                Ok(outcome.content)
            }
            Err(error) => {
                show(ToolStatus::Failed, format!("{summary}: {error}")).await;
                Err(error)
            }
        }
    }

    /// Last words where the model's own need them.
    async fn close(&mut self, blocks: &mut Vec<Block>, reason: StopReason) {
        let words = match reason {
            StopReason::MaxTokens => "\n\n… That is as far as I got: say “go on” for the rest.",
            StopReason::Refusal if !self.has_spoken => "I would rather not answer that one.",
            _ if !self.has_spoken => "I have nothing to add to that.",
            _ => return,
        };
        self.say(words.to_owned()).await;
        blocks.push(Block::text(words.trim_start()));
    }

    /// Puts a whole step into the transcript and before the model.
    fn keep(&mut self, blocks: Vec<Block>, results: Vec<Block>) -> Result<(), workspace::Error> {
        let turn_id = self.turn_id;
        let mut entries = Vec::new();
        if !blocks.is_empty() {
            entries.push(Entry::assistant(turn_id, &blocks));
            self.messages.push(Message {
                role: Role::Assistant,
                content: blocks,
            });
        }
        if !results.is_empty() {
            entries.push(Entry::tools(turn_id, &results));
            self.messages.push(Message {
                role: Role::User,
                content: results,
            });
        }
        self.transcript.append(&self.tutor.workspace, entries)?;
        self.unfinished.clear();
        Ok(())
    }

    /// Sends only what belongs to this turn from here on; false when that is all there is already.
    fn forget_older(&mut self) -> bool {
        let of_turn = self.transcript.messages(0);
        if of_turn.len() >= self.messages.len() {
            return false;
        }
        let kept = self.messages.len() - of_turn.len();
        self.messages.drain(..kept);
        true
    }

    async fn say(&mut self, text: String) {
        // A new step after earlier words begins a new paragraph.
        let text = if self.has_spoken && self.unfinished.is_empty() {
            format!("\n\n{}", text.trim_start())
        } else {
            text
        };
        self.has_spoken = true;
        self.unfinished.push_str(&text);
        self.send(Line::Text { text }).await;
    }

    async fn send(&self, line: Line) {
        // Whoever holds this future watches for the reader going away; nothing to do here.
        let _ = self.lines.send(line).await;
    }
}
