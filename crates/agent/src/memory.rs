//! What the tutor remembers of its learner: one Markdown file, part of every prompt.

use crate::tools::Error;
use crate::workspace::{self, RelativePath, Workspace};

/// Where it is: in plain sight, so that the learner may read it too.
const FILE: &str = "MEMORY.md";
/// Most of it that is kept and put in a prompt.
const MAX_BYTES: usize = 12 * 1024;
/// Longest single note.
const MAX_NOTE_CHARS: usize = 500;

/// What is remembered, as Markdown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memory(String);

impl Memory {
    /// Reads it; nothing is remembered where there is no such file, or none that can be read.
    pub(crate) fn load(workspace: &Workspace) -> Self {
        match workspace.read(&path(), 0, MAX_BYTES) {
            Ok(piece) => Self(String::from_utf8_lossy(&piece.bytes).trim().to_owned()),
            Err(_) => Self::default(),
        }
    }

    /// The text for the prompt.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Adds one note at the end.
    pub(crate) fn add(workspace: &Workspace, note: &str) -> Result<String, Error> {
        let note = note.split_whitespace().collect::<Vec<_>>().join(" ");
        if note.is_empty() {
            return Err(Error::Input("the note is empty".into()));
        }
        if note.chars().count() > MAX_NOTE_CHARS {
            return Err(Error::Limit(format!(
                "a note may have {MAX_NOTE_CHARS} characters; put longer things in a file"
            )));
        }
        let failed = |source| Error::File {
            path: FILE.into(),
            source,
        };
        let present = match workspace.read(&path(), 0, MAX_BYTES) {
            Ok(piece) => piece,
            Err(workspace::Error::NotFound) => workspace::Piece {
                bytes: Vec::new(),
                total_bytes: 0,
            },
            Err(error) => return Err(failed(error)),
        };
        if present.total_bytes + note.len() as u64 + 4 > MAX_BYTES as u64 {
            return Err(Error::Limit(format!(
                "the memory is full: read {FILE}, then write it anew with only what still matters"
            )));
        }
        let ends_whole = present.bytes.last().is_none_or(|last| *last == b'\n');
        let line = format!("{}- {note}\n", if ends_whole { "" } else { "\n" });
        workspace.append(&path(), line.as_bytes()).map_err(failed)?;
        Ok("remembered".into())
    }
}

fn path() -> RelativePath {
    RelativePath::parse(FILE).expect("a constant plain name is a relative path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_one_a_line_also_after_a_file_without_a_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        assert_eq!(Memory::load(&workspace).as_str(), "");
        std::fs::write(folder.path().join(FILE), "# Ada").unwrap();
        Memory::add(&workspace, "likes\n chess").unwrap();
        Memory::add(&workspace, "is nine").unwrap();
        assert_eq!(
            Memory::load(&workspace).as_str(),
            "# Ada\n- likes chess\n- is nine"
        );
    }

    #[test]
    fn a_full_memory_says_so_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        std::fs::write(folder.path().join(FILE), "x".repeat(MAX_BYTES - 8)).unwrap();
        let refused = Memory::add(&workspace, "one more").unwrap_err();
        assert!(refused.to_string().contains("full"), "{refused}");
        assert_eq!(Memory::load(&workspace).as_str().len(), MAX_BYTES - 8);
        let long = "n".repeat(MAX_NOTE_CHARS + 1);
        assert!(Memory::add(&workspace, &long).is_err());
    }
}
