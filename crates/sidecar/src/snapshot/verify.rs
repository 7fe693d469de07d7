//! Compares a restored tree with what the snapshot says, before it becomes the workspace.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustic_core::repofile::{Node, NodeType};
use rustic_core::{IndexedFull, Repository};
use sha2::{Digest, Sha256};

use super::error::Failure;
use super::request::RestoreOutcome;
use super::restore::{Nodes, unwritable};

/// Checks kinds, sizes, modes, link targets and every chunk's hash, and that there is nothing else.
pub(super) fn verify<S: IndexedFull>(
    repo: &Repository<S>,
    root: &Path,
    nodes: &Nodes,
) -> Result<RestoreOutcome, Failure> {
    let mut outcome = RestoreOutcome {
        total_bytes: 0,
        files: 0,
    };
    for (path, node) in nodes {
        let full = root.join(path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // Restic says nothing where it cannot make one.
            Err(_) if node.is_symlink() => {
                return Err(Failure::Workspace("a link was not made".to_owned()));
            }
            Err(error) => return Err(unread(&error, "an entry")),
        };
        match &node.node_type {
            NodeType::File if metadata.is_file() => {
                content(repo, &full, node)?;
                outcome.files += 1;
                outcome.total_bytes += metadata.size();
            }
            NodeType::Dir if metadata.is_dir() => {}
            NodeType::Symlink { .. } if metadata.is_symlink() => {
                let target = fs::read_link(&full).map_err(|error| unread(&error, "a link"))?;
                if target != node.node_type.to_link() {
                    return Err(differs("a link's target"));
                }
                continue;
            }
            _ => return Err(differs("an entry's kind")),
        }
        let wanted = node.meta.mode.unwrap_or_default() & 0o777;
        if metadata.permissions().mode() & 0o7777 != wanted {
            return Err(differs("an entry's mode"));
        }
    }
    let found = count(root).map_err(|error| unwritable(&error))?;
    if found == nodes.len() {
        Ok(outcome)
    } else {
        Err(differs("the number of entries"))
    }
}

fn content<S: IndexedFull>(repo: &Repository<S>, path: &Path, node: &Node) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(|error| unread(&error, "a file"))?;
    let mut chunk = Vec::new();
    let mut length = 0;
    for id in node.content.iter().flatten() {
        let entry = repo
            .get_index_entry(id)
            .map_err(|_| Failure::Damaged("a chunk is in no index".to_owned()))?;
        let size = entry.location.data_length() as usize;
        chunk.resize(size, 0);
        file.read_exact(&mut chunk)
            .map_err(|error| unread(&error, "a file's length"))?;
        if Sha256::digest(&chunk)[..] != hex::decode(id.to_hex().as_str()).unwrap_or_default() {
            return Err(differs("a file's content"));
        }
        length += size as u64;
    }
    let more = file
        .read(&mut [0])
        .map_err(|error| unread(&error, "a file's length"))?;
    if more == 0 && length == node.meta.size {
        Ok(())
    } else {
        Err(differs("a file's length"))
    }
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut entries = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        entries += 1;
        if entry.file_type()?.is_dir() {
            entries += count(&entry.path())?;
        }
    }
    Ok(entries)
}

fn differs(what: &str) -> Failure {
    Failure::Damaged(format!("{what} differs from the snapshot"))
}

/// What is not there, or ends early, was stored so. All else is the machine's.
fn unread(error: &io::Error, what: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => differs(what),
        _ => unwritable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_let_itself_be_read_is_not_taken_for_damage() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        let read = |path: &Path| File::open(path)?.read_exact(&mut [0]);
        for path in [&empty, &folder.path().join("none")] {
            let failure = unread(&read(path).unwrap_err(), "a file");
            assert!(matches!(failure, Failure::Damaged(_)), "{failure:?}");
        }
        // As a bad disk, a folder can be opened and not be read.
        let failure = unread(&read(folder.path()).unwrap_err(), "a file");
        assert!(matches!(failure, Failure::Workspace(_)), "{failure:?}");
    }
}
