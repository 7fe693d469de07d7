//! Keeping the conversation short: when it is over its budget, its older part becomes a summary
//! that the model writes. Only whole exchanges are folded, and never the newest.

use std::fmt::Write as _;
use std::time::Duration;

use carrel_protocol::agent::Line;
use futures::StreamExt as _;
use tokio::sync::mpsc::Sender;

use crate::exchange::MODEL;
use crate::model::{Answer, Block, Failure, Message, Request, Role, SystemBlock, wire_messages};
use crate::prompt;
use crate::transcript::{Entry, Transcript};
use crate::tutor::Tutor;
use crate::workspace;

const SUMMARY_TOKENS: u32 = 1_024;
/// A learner who has the answer should not wait longer for its `done`.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(20);
/// Most of one tool's answer that goes into what is summarised.
const MAX_TOOL_CHARS: usize = 400;

/// Folds the older part away if the conversation is over its budget. A summary that cannot be had
/// waits for the next turn; at twice the budget the oldest exchanges are dropped without one.
pub(crate) async fn compact(
    tutor: &Tutor,
    mut transcript: Transcript,
    lines: &Sender<Line>,
) -> Result<(), workspace::Error> {
    let budget = tutor.history_tokens;
    let total = total_tokens(transcript.entries());
    if total <= budget {
        return Ok(());
    }
    let folded = fold_to(transcript.entries(), budget / 2);
    if folded == 0 {
        return Ok(());
    }
    let status = "Tidying up my notes…".to_owned();
    let _ = lines.send(Line::Status { text: status }).await;
    let older = told(&transcript.entries()[..folded]);
    match tokio::time::timeout(SUMMARY_TIMEOUT, summarise(tutor, &older)).await {
        Ok(Ok(summary)) => transcript.fold(&tutor.workspace, folded, Some(summary)),
        _ if total > 2 * budget => transcript.fold(&tutor.workspace, folded, None),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// How many entries at the beginning to leave out so that the rest fits `tokens`: a whole number of
/// exchanges, and never the newest one.
pub(crate) fn fold_to(entries: &[Entry], tokens: usize) -> usize {
    let mut size = 0;
    let mut from = None;
    for (index, entry) in entries.iter().enumerate().rev() {
        size += estimate(entry);
        if size > tokens && from.is_some() {
            break;
        }
        if matches!(entry, Entry::User { .. }) {
            from = Some(index);
        }
    }
    match from {
        // A summary alone before the first exchange folds nothing.
        Some(1) if matches!(entries.first(), Some(Entry::Summary { .. })) => 0,
        Some(from) => from,
        None => 0,
    }
}

fn total_tokens(entries: &[Entry]) -> usize {
    entries.iter().map(estimate).sum()
}

/// About four bytes a token, and a few for what surrounds them.
fn estimate(entry: &Entry) -> usize {
    let bytes: usize = match entry {
        Entry::Summary { text } | Entry::User { text, .. } => text.len(),
        Entry::Assistant { content, .. } | Entry::Tools { content, .. } => {
            content.iter().map(block_bytes).sum()
        }
    };
    bytes / 4 + 8
}

fn block_bytes(block: &Block) -> usize {
    match block {
        Block::Text { text } => text.len(),
        Block::Image { .. } => 6_000,
        Block::Thinking { thinking, .. } => thinking.len(),
        Block::RedactedThinking { data } => data.len(),
        Block::ToolUse { name, input, .. } => name.len() + input.to_string().len(),
        Block::ToolResult { content, .. } => content.len(),
    }
}

/// The conversation as plain text.
fn told(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        // Writing to a string cannot fail.
        let _ = match entry {
            Entry::Summary { text: earlier } => writeln!(text, "Earlier notes: {earlier}\n"),
            Entry::User { text: asked, .. } => writeln!(text, "Learner: {asked}\n"),
            Entry::Assistant { content, .. } => writeln!(text, "Tutor: {}\n", told_blocks(content)),
            Entry::Tools { content, .. } => writeln!(text, "Tools: {}\n", told_blocks(content)),
        };
    }
    text
}

fn told_blocks(blocks: &[Block]) -> String {
    let parts = blocks.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.clone()),
        Block::ToolUse { name, .. } => Some(format!("(uses {name})")),
        Block::ToolResult { content, .. } => Some(content.chars().take(MAX_TOOL_CHARS).collect()),
        Block::Image { .. } | Block::Thinking { .. } | Block::RedactedThinking { .. } => None,
    });
    parts.collect::<Vec<_>>().join(" ")
}

async fn summarise(tutor: &Tutor, older: &str) -> Result<String, Failure> {
    let messages = [Message {
        role: Role::User,
        content: vec![Block::text(older)],
    }];
    let request = Request {
        model: MODEL,
        max_tokens: SUMMARY_TOKENS,
        system: vec![SystemBlock::cached(prompt::SUMMARISE)],
        messages: wire_messages(&messages),
        tools: &[],
        tool_choice: None,
        stream: true,
    };
    let mut events = tutor.model.stream(&request).await?;
    let mut answer = Answer::default();
    while let Some(event) = events.next().await {
        answer.take(event?)?;
    }
    let (blocks, _) = answer.finish()?;
    let summary = told_blocks(&blocks);
    if summary.trim().is_empty() {
        return Err(Failure::Refused("the summary is empty".into()));
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_core::TurnId;

    fn exchange(number: u8, bytes: usize) -> [Entry; 2] {
        let turn_id: TurnId = format!("00000000-0000-7000-8000-0000000000{number:02}")
            .parse()
            .unwrap();
        let text = "q".repeat(bytes);
        let answer = [Block::text("a".repeat(bytes))];
        [
            Entry::User { turn_id, text },
            Entry::assistant(turn_id, &answer),
        ]
    }

    #[test]
    fn only_whole_exchanges_are_folded_and_the_newest_never() {
        // Each exchange is 2 × (400 / 4 + 8) = 216 tokens.
        let entries: Vec<_> = (1..=4).flat_map(|number| exchange(number, 400)).collect();
        for (tokens, folded) in [(864, 0), (863, 2), (432, 4), (431, 6), (216, 6), (0, 6)] {
            assert_eq!(fold_to(&entries, tokens), folded, "{tokens}");
        }
        assert_eq!(fold_to(&entries[..2], 0), 0);
        assert_eq!(fold_to(&[], 0), 0);
    }

    #[test]
    fn a_summary_is_folded_with_the_first_exchange_and_not_alone() {
        let summary = Entry::Summary {
            text: "s".repeat(4_000),
        };
        let mut entries = vec![summary];
        entries.extend(exchange(1, 400));
        assert_eq!(fold_to(&entries, 0), 0);
        entries.extend(exchange(2, 400));
        assert_eq!(fold_to(&entries, 216), 3);
    }
}
