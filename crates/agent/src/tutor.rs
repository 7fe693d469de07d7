//! One turn from the request to its last line: what was replayed, what was said, how it ended.
//! Called by the server; the conversation with the model itself is in `exchange`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_core::turn::FailureCode;
use carrel_protocol::agent::{Attachment, Line, TurnRequest};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Ended, Exchange};
use crate::memory::Memory;
use crate::model::{Block, Client, ImageSource};
use crate::transcript::{Entry, Transcript};
use crate::workspace::{RelativePath, Workspace};
use crate::{Error, Options, compaction, prompt};

/// Largest picture that is shown to the model; base64 makes a third more of it.
const MAX_IMAGE_BYTES: usize = 3 * 1024 * 1024;
const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The tutor of one learner.
#[derive(Debug)]
pub(crate) struct Tutor {
    pub(crate) workspace: Workspace,
    pub(crate) model: Client,
    pub(crate) history_tokens: usize,
}

impl Tutor {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let workspace = Workspace::open(&options.workspace)
            .map_err(|error| Error::Workspace(options.workspace, error.to_string()))?;
        Ok(Self {
            workspace,
            model: Client::new(&options.model_url, options.model_token).map_err(Error::Client)?,
            history_tokens: options.history_tokens,
        })
    }

    /// Answers one message, line by line. The reader of `lines` going away, or `cancel`, is a stop:
    /// the model's call ends, and what was said stays in the transcript, marked.
    pub(crate) async fn answer(
        &self,
        request: TurnRequest,
        lines: &Sender<Line>,
        cancel: &CancellationToken,
    ) {
        let turn_id = request.turn_id;
        let last = match self.attempt(request, lines, cancel).await {
            Ok(Ended::Answered) => Line::Done,
            Ok(Ended::Stopped) => {
                tracing::info!(turn.id = %turn_id, "turn stopped");
                return;
            }
            Ok(Ended::Failed(failure)) => {
                tracing::warn!(turn.id = %turn_id, error = %failure, "turn failed");
                Line::Error {
                    code: failure.code().to_string(),
                    message: failure.public_message(),
                    retryable: failure.is_retryable(),
                    reason: failure.to_string(),
                }
            }
            Err(error) => {
                tracing::error!(turn.id = %turn_id, %error, "the transcript failed");
                Line::Error {
                    code: FailureCode::AgentFailed.to_string(),
                    message: "I could not open my notes of our conversation.".into(),
                    retryable: false,
                    reason: error.to_string(),
                }
            }
        };
        // A reader that has gone meanwhile needs no last line.
        let _ = lines.send(last).await;
    }

    async fn attempt(
        &self,
        request: TurnRequest,
        lines: &Sender<Line>,
        cancel: &CancellationToken,
    ) -> Result<Ended, crate::workspace::Error> {
        let memory = Memory::load(&self.workspace);
        let mut transcript = Transcript::load(&self.workspace)?;
        let asked = Entry::User {
            turn_id: request.turn_id,
            text: prompt::asked(&request),
        };
        transcript.append(&self.workspace, vec![asked])?;
        let today = request
            .message
            .sent_time
            .strftime("%A, %-d %B %Y")
            .to_string();
        let about = prompt::about(&today, &memory, transcript.summary());
        let pictures = self.pictures(&request.message.attachments);

        let mut exchange = Exchange::new(self, lines, request.turn_id, transcript, about, pictures);
        let ended = tokio::select! {
            biased;
            () = lines.closed() => Ended::Stopped,
            () = cancel.cancelled() => Ended::Stopped,
            ended = exchange.hold() => ended?,
        };
        let (mut transcript, unfinished) = exchange.into_parts();
        match &ended {
            Ended::Stopped => {
                let stopped = Entry::stopped(request.turn_id, &unfinished);
                transcript.append(&self.workspace, vec![stopped])?;
            }
            Ended::Answered => {
                tokio::select! {
                    biased;
                    () = lines.closed() => {}
                    () = cancel.cancelled() => {}
                    compacted = compaction::compact(self, transcript, lines) => compacted?,
                }
            }
            // Nothing of a failed turn is kept: the sidecar discards the workspace.
            Ended::Failed(_) => {}
        }
        Ok(ended)
    }

    /// The pictures among the attachments, for the model to see in this turn.
    fn pictures(&self, attachments: &[Attachment]) -> Vec<Block> {
        let is_picture = |a: &&Attachment| IMAGE_TYPES.contains(&a.media_type.as_str());
        attachments
            .iter()
            .filter(is_picture)
            .filter_map(|attachment| {
                let path = RelativePath::parse(&attachment.path).ok()?;
                let piece = self.workspace.read(&path, 0, MAX_IMAGE_BYTES).ok()?;
                // Half a picture is none; the text names the file all the same.
                let whole = piece.total_bytes == piece.bytes.len() as u64;
                whole.then(|| Block::Image {
                    source: ImageSource::Base64 {
                        media_type: attachment.media_type.clone(),
                        data: STANDARD.encode(piece.bytes),
                    },
                })
            })
            .collect()
    }
}
