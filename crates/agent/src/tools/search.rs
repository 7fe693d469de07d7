//! Finding a text in the workspace: breadth first, hidden folders left out, bounded in every direction.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::{Error, at};
use crate::workspace::{Kind, RelativePath, Workspace};

const MAX_FOLDERS: usize = 300;
const MAX_FILES: usize = 2_000;
const MAX_IN_FOLDER: usize = 1_000;
const MAX_FILE_BYTES: usize = 256 * 1024;
const MAX_TOTAL_BYTES: usize = 16 * 1024 * 1024;
const MAX_HITS: usize = 50;
const MAX_LINE_CHARS: usize = 200;

pub(super) fn search(
    workspace: &Workspace,
    top: &RelativePath,
    query: &str,
) -> Result<String, Error> {
    let query = query.trim().to_lowercase();
    if query.is_empty() {
        return Err(Error::Input("the query is empty".into()));
    }
    let mut found = Found::default();
    let mut folders = VecDeque::from([top.clone()]);
    while let Some(folder) = folders.pop_front() {
        found.folders += 1;
        let listed = match workspace.list(&folder, MAX_IN_FOLDER) {
            Ok((listed, _)) => listed,
            Err(error) if folder == *top => return Err(at(top, error)),
            // It went away or is closed to us: the rest is still worth searching.
            Err(_) => continue,
        };
        for entry in listed {
            if entry.name.starts_with('.') {
                continue;
            }
            let path = folder.join(&entry.name);
            match entry.kind {
                Kind::Folder if folders.len() + found.folders < MAX_FOLDERS => {
                    folders.push_back(path);
                }
                Kind::File => found.look_into(workspace, &path, &query),
                Kind::Folder | Kind::Other => {}
            }
            if found.is_full() {
                return Ok(found.told());
            }
        }
    }
    Ok(found.told())
}

#[derive(Default)]
struct Found {
    text: String,
    hits: usize,
    files: usize,
    folders: usize,
    bytes: usize,
}

impl Found {
    fn look_into(&mut self, workspace: &Workspace, path: &RelativePath, query: &str) {
        let Ok(piece) = workspace.read(path, 0, MAX_FILE_BYTES) else {
            return;
        };
        self.files += 1;
        self.bytes += piece.bytes.len();
        if piece.bytes.contains(&0) {
            return;
        }
        let content = String::from_utf8_lossy(&piece.bytes);
        for (number, line) in content.lines().enumerate() {
            if self.hits == MAX_HITS {
                return;
            }
            if line.to_lowercase().contains(query) {
                self.hits += 1;
                let line: String = line.trim().chars().take(MAX_LINE_CHARS).collect();
                // Writing to a string cannot fail.
                let _ = writeln!(self.text, "{path}:{}: {line}", number + 1);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.hits >= MAX_HITS || self.files >= MAX_FILES || self.bytes >= MAX_TOTAL_BYTES
    }

    fn told(mut self) -> String {
        if self.is_full() {
            self.text.push_str("… there may be more\n");
        }
        if self.text.is_empty() {
            self.text.push_str("nothing found\n");
        }
        self.text
    }
}
