//! Listing, reading, writing and handing out files.

use std::fmt::Write as _;

use super::{Error, GivenFile, Outcome, PRIVATE_FOLDER, at};
use crate::workspace::{Kind, RelativePath, Workspace};

const MAX_LISTED: usize = 200;
const MAX_READ_BYTES: usize = 16 * 1024;
const MAX_WRITTEN_BYTES: usize = 256 * 1024;
const MAX_GIVEN_BYTES: u64 = 8 * 1024 * 1024;

pub(super) fn list(workspace: &Workspace, path: &RelativePath) -> Result<String, Error> {
    let (listed, more) = workspace
        .list(path, MAX_LISTED)
        .map_err(|error| at(path, error))?;
    let mut text = String::new();
    let shown = listed
        .iter()
        .filter(|listed| !(path.components().is_empty() && listed.name == PRIVATE_FOLDER));
    for listed in shown {
        // Writing to a string cannot fail.
        let _ = match listed.kind {
            Kind::Folder => writeln!(text, "{}/", listed.name),
            Kind::File => writeln!(text, "{} ({} bytes)", listed.name, listed.bytes),
            Kind::Other => writeln!(text, "{} (not a plain file)", listed.name),
        };
    }
    if more {
        text.push_str("… and more\n");
    }
    if text.is_empty() {
        text.push_str("empty\n");
    }
    Ok(text)
}

pub(super) fn read(
    workspace: &Workspace,
    path: &RelativePath,
    offset: u64,
) -> Result<String, Error> {
    let mut piece = workspace
        .read(path, offset, MAX_READ_BYTES)
        .map_err(|error| at(path, error))?;
    if piece.bytes.contains(&0) {
        return Err(Error::Limit(format!(
            "{path} is not text ({} bytes)",
            piece.total_bytes
        )));
    }
    // A piece may end inside a character: that one is left for the next piece.
    if let Err(error) = std::str::from_utf8(&piece.bytes)
        && error.error_len().is_none()
    {
        piece.bytes.truncate(error.valid_up_to());
    }
    let end = offset + piece.bytes.len() as u64;
    let mut text = String::from_utf8_lossy(&piece.bytes).into_owned();
    if end < piece.total_bytes {
        let total = piece.total_bytes;
        let _ = write!(
            text,
            "\n[{end} of {total} bytes; read on with offset {end}]"
        );
    } else if text.is_empty() {
        text.push_str("[nothing]");
    }
    Ok(text)
}

pub(super) fn write(
    workspace: &Workspace,
    path: &RelativePath,
    content: &str,
) -> Result<String, Error> {
    if content.len() > MAX_WRITTEN_BYTES {
        return Err(Error::Limit(format!(
            "a file may have {MAX_WRITTEN_BYTES} bytes, this has {}",
            content.len()
        )));
    }
    workspace
        .replace(path, content.as_bytes())
        .map_err(|error| at(path, error))?;
    Ok(format!("wrote {path} ({} bytes)", content.len()))
}

pub(super) fn give(workspace: &Workspace, path: &RelativePath) -> Result<Outcome, Error> {
    let total = workspace
        .read(path, 0, 0)
        .map_err(|error| at(path, error))?
        .total_bytes;
    if total > MAX_GIVEN_BYTES {
        return Err(Error::Limit(format!(
            "{path} has {total} bytes, a file for the learner may have {MAX_GIVEN_BYTES}"
        )));
    }
    let name = path.components().last().cloned().unwrap_or_default();
    Ok(Outcome {
        content: format!("{path} goes with your reply"),
        given: Some(GivenFile {
            media_type: media_type(&name),
            name,
            path: path.to_string(),
        }),
    })
}

fn media_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "md" => "text/markdown",
        "txt" | "py" | "rs" | "js" | "c" | "java" => "text/plain",
        "csv" => "text/csv",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
