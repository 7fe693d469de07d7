//! `carrel learner chat` and `logs`: a learner's stream on the terminal.

use std::io::BufRead as _;

use anyhow::Context as _;
use carrel_gateway::EventPage;
use carrel_protocol::gateway::{PostMessage, StreamEvent};
use futures::StreamExt as _;
use reqwest::Method;
use sse_stream::SseStream;
use uuid::Uuid;

use super::learner::segment;
use crate::cli;
use crate::client::Client;
use crate::exit::{Failure, Kind};
use crate::output;

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
    let server = Client::find(flags)?;
    if let Some(message) = message {
        return match say(&server, id, message).await? {
            Outcome::Done => Ok(()),
            Outcome::Failed { code, detail } => {
                let kind = if code == "budget_exhausted" {
                    Kind::OverBudget
                } else {
                    Kind::Failed
                };
                let message = format!("{detail} ('carrel learner logs {id}' says why)");
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
        if let Outcome::Failed { detail, .. } = say(&server, id, &line).await? {
            output::talk(&detail);
        }
    }
    Ok(())
}

/// Sends one message and prints the reply as it comes.
async fn say(server: &Client, id: &str, text: &str) -> anyhow::Result<Outcome> {
    let body = PostMessage {
        text: text.to_owned(),
        attachments: Vec::new(),
    };
    let request = server
        .request(
            Method::POST,
            &format!("/v1/learners/{}/messages", segment(id)),
        )
        .header("accept", "text/event-stream")
        .header("idempotency-key", Uuid::now_v7().to_string())
        .json(&body);
    let response = server.answer(request).await?;
    let mut events = SseStream::from_bytes_stream(response.bytes_stream());
    let mut said = String::new();
    while let Some(event) = events.next().await {
        let event = event.context(
            "the stream broke off; the turn goes on, and 'carrel learner logs' shows it",
        )?;
        let Some(data) = event.data else { continue };
        match serde_json::from_str(&data).context("reading the stream")? {
            StreamEvent::Delta { text, .. } => {
                output::piece(&text)?;
                said.push_str(&text);
            }
            StreamEvent::State { detail, .. } if !detail.is_empty() => output::talk(&detail),
            StreamEvent::Tool { summary, name, .. } => {
                output::talk(&format!("[{name}] {summary}"));
            }
            StreamEvent::Restart { reason, .. } => {
                if !said.is_empty() {
                    output::line("")?;
                    said.clear();
                }
                output::talk(&format!("It begins again: {reason}"));
            }
            StreamEvent::Done { reply, .. } => {
                if said.is_empty() {
                    output::piece(&reply.text)?;
                }
                output::line("")?;
                for file in reply.files {
                    output::talk(&format!("file: {} ({} bytes)", file.name, file.size_bytes));
                }
                return Ok(Outcome::Done);
            }
            StreamEvent::Error { code, detail, .. } => {
                if !said.is_empty() {
                    output::line("")?;
                }
                return Ok(Outcome::Failed { code, detail });
            }
            StreamEvent::State { .. } => {}
        }
    }
    let message = "the stream ended early; the turn goes on, and 'carrel learner logs' shows it";
    Err(Failure::new(Kind::Failed, message).into())
}

/// Prints a learner's durable events, a line each.
pub(super) async fn logs(id: &str, follow: bool, flags: &cli::Client) -> anyhow::Result<()> {
    let server = Client::find(flags)?;
    // Asking for the learner first makes a wrong name an error and not an empty log.
    let _: serde_json::Value = server.get(&super::learner::path(id, "")).await?;
    let mut after = String::new();
    loop {
        let path = format!("/admin/v1/events?learner={}&limit=500{after}", segment(id));
        let page: EventPage = server.get(&path).await?;
        for placed in &page.events {
            let event = &placed.event;
            if flags.output == cli::Output::Json {
                output::line(&serde_json::to_string(event)?)?;
            } else {
                let body = serde_json::to_string(&event.body)?;
                output::line(&format!("{} {} {body}", event.time, event.version))?;
            }
        }
        if page.events.is_empty() {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        after = format!("&after={}", page.next);
    }
}
