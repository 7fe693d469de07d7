//! `carrel learner chat`: a learner's turns on the terminal, or as data.

mod turn;

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use carrel_protocol::gateway::{History, StreamEvent};

use super::learner::segment;
use crate::cli::{self, Output};
use crate::client::Client;
use crate::exit::{Failure, Kind};
use crate::output;
use turn::Turn;

/// How a turn ended.
enum Outcome {
    Done,
    Failed { code: String, detail: String },
}

pub(super) async fn run(
    id: &str,
    message: Option<&str>,
    flags: &cli::Client,
) -> anyhow::Result<()> {
    // Later a server that does not answer is waited for: whether there is one and it knows the learner is asked first.
    let history = format!("/v1/learners/{}/messages?limit=1", segment(id));
    let _: History = Client::find(flags).await?.get(&history).await?;
    if let Some(message) = message {
        return match say(id, message, flags).await? {
            Outcome::Done => Ok(()),
            Outcome::Failed { code, detail } => {
                let kind = if code == "budget_exhausted" {
                    Kind::OverBudget
                } else {
                    Kind::Failed
                };
                let logs = flags.command(&format!("learner logs {id}"));
                let message = format!("{detail} ('{logs}' says why)");
                Err(Failure::new(kind, message).into())
            }
        };
    }
    output::talk("One message a line; end with Ctrl-D.");
    for line in std::io::stdin().lock().lines() {
        let line = line.context("reading standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        if let Outcome::Failed { detail, .. } = say(id, &line, flags).await? {
            output::talk(&detail);
        }
    }
    Ok(())
}

/// Sends one message and prints what comes of it until its turn has an outcome.
async fn say(id: &str, text: &str, flags: &cli::Client) -> anyhow::Result<Outcome> {
    let mut turn = Turn::new(id, text, flags);
    let mut paper = Paper::new(std::io::stdout().is_terminal());
    loop {
        let (event, data) = turn.next().await?;
        match flags.output {
            Output::Table | Output::Wide => paper.print(&event)?,
            Output::Json => output::line(&data)?,
            Output::Yaml => output::piece(&format!("---\n{}", serde_yaml::to_string(&event)?))?,
            Output::Name => {
                if let StreamEvent::Done { turn_id, .. } = &event {
                    output::line(&turn_id.to_string())?;
                }
            }
        }
        match event {
            StreamEvent::Done { .. } => return Ok(Outcome::Done),
            StreamEvent::Error { code, detail, .. } => {
                return Ok(Outcome::Failed { code, detail });
            }
            StreamEvent::State { .. }
            | StreamEvent::Delta { .. }
            | StreamEvent::Tool { .. }
            | StreamEvent::Restart { .. } => {}
        }
    }
}

/// A turn as people read it. On a terminal the reply is shown as it comes; what may yet become void is no reply, so that
/// elsewhere it is written when it is whole.
struct Paper {
    is_live: bool,
    /// Of the attempt that runs.
    said: bool,
    told: String,
}

impl Paper {
    fn new(is_live: bool) -> Self {
        Self {
            is_live,
            said: false,
            told: String::new(),
        }
    }

    fn print(&mut self, event: &StreamEvent) -> anyhow::Result<()> {
        match event {
            StreamEvent::Delta { text, .. } => {
                if self.is_live {
                    output::piece(text)?;
                    self.said = true;
                }
            }
            StreamEvent::State { detail, .. } => {
                // Steps that follow each other may be the same to people.
                if !detail.is_empty() && *detail != self.told {
                    output::talk(detail);
                    self.told.clone_from(detail);
                }
            }
            StreamEvent::Tool { summary, name, .. } => output::talk(&format!("[{name}] {summary}")),
            StreamEvent::Restart { reason, .. } => {
                self.end_line()?;
                output::talk(&format!("It begins again: {reason}"));
            }
            StreamEvent::Done { reply, .. } => {
                if !self.said {
                    output::piece(&reply.text)?;
                }
                output::line("")?;
                for file in &reply.files {
                    output::talk(&format!("file: {} ({} bytes)", file.name, file.size_bytes));
                }
            }
            StreamEvent::Error { .. } => self.end_line()?,
        }
        Ok(())
    }

    fn end_line(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.said) {
            output::line("")?;
        }
        Ok(())
    }
}
