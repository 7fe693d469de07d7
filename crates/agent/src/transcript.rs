//! The conversation as it is kept: `.tutor/transcript.jsonl`, whole lines, appended.

use carrel_core::TurnId;
use serde::{Deserialize, Serialize};

use crate::compaction;
use crate::model::{Block, Message, Role};
use crate::tools::PRIVATE_FOLDER;
use crate::workspace::{Error, RelativePath, Workspace};

const FILE: &str = "transcript.jsonl";
/// Most of the file that is read; compaction keeps it far below.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// What stood before, in short. Always the first line.
    Summary { text: String },
    /// What the learner wrote. Begins an exchange.
    User { turn_id: TurnId, text: String },
    /// What the tutor said and which tools it asked for.
    Assistant {
        turn_id: TurnId,
        content: Vec<Block>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stopped: bool,
    },
    /// What the tools answered.
    Tools {
        turn_id: TurnId,
        content: Vec<Block>,
    },
}

impl Entry {
    /// A whole step. Thoughts are for their own turn only and are not kept.
    pub(crate) fn assistant(turn_id: TurnId, blocks: &[Block]) -> Self {
        let kept = |block: &&Block| matches!(block, Block::Text { .. } | Block::ToolUse { .. });
        Self::Assistant {
            turn_id,
            content: blocks.iter().filter(kept).cloned().collect(),
            stopped: false,
        }
    }

    /// What was said before the learner stopped it.
    pub(crate) fn stopped(turn_id: TurnId, said: &str) -> Self {
        let content = match said.trim() {
            "" => vec![Block::text("[The learner stopped me here.]")],
            said => vec![Block::text(format!(
                "{said} [The learner stopped me here.]"
            ))],
        };
        Self::Assistant {
            turn_id,
            content,
            stopped: true,
        }
    }

    /// The tools' answers of one step.
    pub(crate) fn tools(turn_id: TurnId, results: &[Block]) -> Self {
        Self::Tools {
            turn_id,
            content: results.to_vec(),
        }
    }
}

/// The conversation, in memory and on disk alike.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    entries: Vec<Entry>,
    /// The file ends inside a line, which the next line must not continue.
    torn: bool,
}

impl Transcript {
    /// Reads it; empty where there is none. Lines that cannot be read are passed over.
    pub(crate) fn load(workspace: &Workspace) -> Result<Self, Error> {
        let bytes = match workspace.read_end(&path(), MAX_BYTES) {
            Ok(piece) => piece.bytes,
            Err(Error::NotFound) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let entries = bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let torn = bytes.last().is_some_and(|last| *last != b'\n');
        Ok(Self { entries, torn })
    }

    /// Adds lines, in one write.
    pub(crate) fn append(
        &mut self,
        workspace: &Workspace,
        entries: Vec<Entry>,
    ) -> Result<(), Error> {
        let mut lines = if self.torn { vec![b'\n'] } else { Vec::new() };
        lines.extend(encode(&entries));
        workspace.append(&path(), &lines)?;
        self.torn = false;
        self.entries.extend(entries);
        Ok(())
    }

    /// Puts `summary` in the place of the first `folded` entries; without one they are dropped, and
    /// the summary that was there stays.
    pub(crate) fn fold(
        &mut self,
        workspace: &Workspace,
        folded: usize,
        summary: Option<String>,
    ) -> Result<(), Error> {
        let summary = summary.or_else(|| self.summary().map(str::to_owned));
        let first = summary.map(|text| Entry::Summary { text });
        let rest = self.entries.iter().skip(folded).cloned();
        let entries: Vec<_> = first.into_iter().chain(rest).collect();
        workspace.replace(&path(), &encode(&entries))?;
        *self = Self {
            entries,
            torn: false,
        };
        Ok(())
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What stood before the first exchange, in short.
    pub(crate) fn summary(&self) -> Option<&str> {
        match self.entries.first() {
            Some(Entry::Summary { text }) => Some(text),
            _ => None,
        }
    }

    /// The newest whole exchanges that fit `tokens`, as the model reads them; always the last one.
    pub(crate) fn messages(&self, tokens: usize) -> Vec<Message> {
        let from = compaction::fold_to(&self.entries, tokens);
        let mut messages: Vec<Message> = Vec::new();
        for entry in &self.entries[from..] {
            let (role, content) = match entry {
                Entry::Summary { .. } => continue,
                Entry::User { text, .. } => (Role::User, vec![Block::text(text)]),
                Entry::Assistant { content, .. } => (Role::Assistant, content.clone()),
                Entry::Tools { content, .. } => (Role::User, content.clone()),
            };
            // Not every server takes two messages of one role in a row.
            match messages.last_mut() {
                Some(last) if last.role == role => last.content.extend(content),
                _ => messages.push(Message { role, content }),
            }
        }
        messages.retain(|message| !message.content.is_empty());
        messages
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut lines = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut lines, entry)
            .expect("an entry has string keys only, and memory takes every write");
        lines.push(b'\n');
    }
    lines
}

fn path() -> RelativePath {
    RelativePath::parse(&format!("{PRIVATE_FOLDER}/{FILE}"))
        .expect("constant plain names are a relative path")
}

#[cfg(test)]
mod tests;
