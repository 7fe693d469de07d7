//! Lists what of a workspace goes into a snapshot, within its limits. Follows no link and opens no file.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::RESTORE_FOLDER;
use super::error::{Failure, LimitKind};
use super::request::Limits;

/// What of a workspace goes into a snapshot.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Folders before what is in them, each folder's entries by the bytes of their names.
    pub(super) entries: Vec<Entry>,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Files.
    pub(super) files: u64,
    /// Sockets, devices and pipes that are left out.
    pub(super) special: u64,
}

/// A file, folder or link.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// From the workspace's root.
    pub(super) path: PathBuf,
    pub(super) content: Content,
    pub(super) metadata: Metadata,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Folder,
    File,
    Link(PathBuf),
}

/// Lists a workspace.
pub(super) fn walk(root: &Path, limits: &Limits) -> Result<Listing, Failure> {
    let mut listing = Listing::default();
    folder(root, Path::new(""), limits, &mut listing)?;
    Ok(listing)
}

fn folder(root: &Path, path: &Path, limits: &Limits, listing: &mut Listing) -> Result<(), Failure> {
    let unreadable = |path: &Path, error: &io::Error| {
        Failure::Unreadable(format!("{} ({error})", path.display()))
    };
    let room = limits.max_files.saturating_sub(count(listing));
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(path)).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if !left_out(path, &entry.file_name(), limits) {
            names.push(entry.file_name());
        }
        if names.len() as u64 > room {
            return Err(too_many(LimitKind::Files, limits.max_files));
        }
    }
    names.sort_unstable();
    for name in names {
        let path = path.join(name);
        if path.as_os_str().len() as u64 > limits.max_path_bytes {
            return Err(too_many(LimitKind::Path, limits.max_path_bytes));
        }
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).map_err(|error| unreadable(&path, &error))?;
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            Content::Folder
        } else if kind.is_file() {
            listing.files += 1;
            listing.bytes = listing.bytes.saturating_add(metadata.size());
            Content::File
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(|error| unreadable(&path, &error))?;
            Content::Link(target)
        } else {
            listing.special += 1;
            continue;
        };
        let is_folder = matches!(content, Content::Folder);
        listing.entries.push(Entry {
            path: path.clone(),
            content,
            metadata,
        });
        if count(listing) > limits.max_files {
            return Err(too_many(LimitKind::Files, limits.max_files));
        }
        if listing.bytes > limits.max_bytes {
            return Err(too_many(LimitKind::Bytes, limits.max_bytes));
        }
        if is_folder {
            folder(root, &path, limits, listing)?;
        }
    }
    Ok(())
}

fn count(listing: &Listing) -> u64 {
    listing.entries.len() as u64 + listing.special
}

fn too_many(what: LimitKind, limit: u64) -> Failure {
    Failure::Limit { what, limit }
}

/// Whether the class, or we ourselves, leave this entry out.
fn left_out(parent: &Path, name: &OsStr, limits: &Limits) -> bool {
    let at_root = parent.as_os_str().is_empty();
    (at_root && name == RESTORE_FOLDER)
        || limits.exclude.iter().any(|exclude| {
            let exclude = exclude.trim_end_matches('/');
            match exclude.strip_prefix('/') {
                Some(path) => parent.join(name) == Path::new(path),
                None if exclude.contains('/') => parent.join(name) == Path::new(exclude),
                None => name.as_bytes() == exclude.as_bytes(),
            }
        })
}
