//! What the tutor can do besides talk: six tools on the workspace. Descriptions for the model here,
//! the doing in `tools/`. A tool never fails a turn: its error is an answer that the model reads.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::memory::Memory;
use crate::workspace::{self, RelativePath, Workspace};

mod files;
mod search;

/// The folder of our own bookkeeping, which no tool may open.
pub(crate) const PRIVATE_FOLDER: &str = ".tutor";

/// A tool and its input, checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", content = "input", rename_all = "snake_case")]
pub(crate) enum Call {
    ListFiles {
        #[serde(default)]
        path: String,
    },
    ReadFile {
        path: String,
        #[serde(default)]
        offset: u64,
    },
    WriteFile {
        path: String,
        content: String,
    },
    SearchFiles {
        query: String,
        #[serde(default)]
        path: String,
    },
    Remember {
        note: String,
    },
    GiveFile {
        path: String,
    },
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// For the model.
    pub(crate) content: String,
    /// A file for the learner, which goes with the reply.
    pub(crate) given: Option<GivenFile>,
}

/// A file that goes with the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenFile {
    pub(crate) name: String,
    pub(crate) media_type: &'static str,
    pub(crate) path: String,
}

/// Why a call came to nothing, in words for the model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no tool '{0}'")]
    Unknown(String),
    #[error("the input is not what the tool takes: {0}")]
    Input(String),
    #[error("{path}: {source}")]
    File {
        path: String,
        source: workspace::Error,
    },
    #[error("{0}")]
    Limit(String),
}

impl Call {
    /// Reads what the model asked for.
    pub(crate) fn parse(name: &str, input: &Value) -> Result<Self, Error> {
        if !definitions().iter().any(|tool| tool["name"] == name) {
            return Err(Error::Unknown(name.chars().take(64).collect()));
        }
        if input.is_null() {
            return Err(Error::Input("it was cut short".into()));
        }
        serde_json::from_value(json!({"name": name, "input": input}))
            .map_err(|error| Error::Input(error.to_string()))
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::ListFiles { path } if path.is_empty() => "Looking through your files".into(),
            Self::ListFiles { path } => format!("Looking into {}", short(path)),
            Self::ReadFile { path, .. } => format!("Reading {}", short(path)),
            Self::WriteFile { path, .. } => format!("Writing {}", short(path)),
            Self::SearchFiles { query, .. } => format!("Searching for “{}”", short(query)),
            Self::Remember { note } => format!("Remembering: {}", short(note)),
            Self::GiveFile { path } => format!("Handing you {}", short(path)),
        }
    }

    /// Does it. Blocking, but bounded: every tool reads and writes a limited amount.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Outcome, Error> {
        let content = match self {
            Self::ListFiles { path } => files::list(workspace, &open_to_tools(path)?)?,
            Self::ReadFile { path, offset } => {
                files::read(workspace, &open_to_tools(path)?, *offset)?
            }
            Self::WriteFile { path, content } => {
                files::write(workspace, &open_to_tools(path)?, content)?
            }
            Self::SearchFiles { query, path } => {
                search::search(workspace, &open_to_tools(path)?, query)?
            }
            Self::Remember { note } => Memory::add(workspace, note)?,
            Self::GiveFile { path } => return files::give(workspace, &open_to_tools(path)?),
        };
        Ok(Outcome {
            content,
            given: None,
        })
    }
}

/// The tools as the dialect describes them; always the same bytes, for the providers' caches.
pub(crate) fn definitions() -> Vec<Value> {
    let path = |what: &str| json!({"type": "string", "description": what});
    let tool = |name: &str, description: &str, properties: Value, required: Value| {
        json!({
            "name": name,
            "description": description,
            "input_schema": {"type": "object", "properties": properties, "required": required},
        })
    };
    vec![
        tool(
            "list_files",
            "Lists a folder of the learner's workspace.",
            json!({"path": path("Folder, relative to the workspace. Leave out for all of it.")}),
            json!([]),
        ),
        tool(
            "read_file",
            "Reads a text file of the workspace, 16 KiB at a time.",
            json!({
                "path": path("File, relative to the workspace."),
                "offset": {"type": "integer", "minimum": 0, "description": "Byte to begin at; 0 if left out."},
            }),
            json!(["path"]),
        ),
        tool(
            "write_file",
            "Writes a whole text file in the workspace; replaces what was there, makes missing folders.",
            json!({
                "path": path("File, relative to the workspace."),
                "content": {"type": "string", "description": "All of the new content."},
            }),
            json!(["path", "content"]),
        ),
        tool(
            "search_files",
            "Finds lines that contain a text (upper and lower case alike) in the files of the workspace.",
            json!({
                "query": {"type": "string", "description": "The text to find; no pattern."},
                "path": path("Folder to search, relative to the workspace. Leave out for all of it."),
            }),
            json!(["query"]),
        ),
        tool(
            "remember",
            "Keeps one short fact about the learner for all later conversations.",
            json!({"note": {"type": "string", "description": "One sentence, like: Ada is learning fractions and likes chess."}}),
            json!(["note"]),
        ),
        tool(
            "give_file",
            "Hands a file of the workspace to the learner with your reply, to open or download.",
            json!({"path": path("File, relative to the workspace.")}),
            json!(["path"]),
        ),
    ]
}

fn open_to_tools(written: &str) -> Result<RelativePath, Error> {
    let failed = |source: workspace::Error| Error::File {
        path: short(written),
        source,
    };
    let path = RelativePath::parse(written).map_err(|error| failed(error.into()))?;
    if path.is_under(PRIVATE_FOLDER) {
        return Err(failed(workspace::Error::NotFound));
    }
    Ok(path)
}

fn at(path: &RelativePath, source: workspace::Error) -> Error {
    Error::File {
        path: path.to_string(),
        source,
    }
}

fn short(text: &str) -> String {
    const MOST: usize = 80;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MOST {
        return line.to_owned();
    }
    line.chars().take(MOST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
