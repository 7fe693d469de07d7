//! A listed workspace as `rustic_core` reads it: what is stored of each entry, and how a file is opened safely.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Take};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;

use jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{
    ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult,
};
use rustix::fs::OFlags;

use super::walk::{Content, Entry};

/// The bits of Go's `os.FileMode`, in which the restic format keeps modes.
pub(super) const GO_DIRECTORY: u32 = 1 << 31;
pub(super) const GO_SYMLINK: u32 = 1 << 27;

/// A listed workspace.
pub(super) struct Source {
    root: Arc<PathBuf>,
    entries: Vec<Entry>,
    unreadable: Arc<Mutex<Option<String>>>,
}

impl Source {
    pub(super) fn new(root: &Path, entries: Vec<Entry>) -> Self {
        Self {
            root: Arc::new(root.to_owned()),
            entries,
            unreadable: Arc::default(),
        }
    }

    /// The first file that could not be read, if one could not: `rustic_core` would leave it out and go on.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ReadSource for Source {
    type Open = Opener;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries {
        Entries {
            root: Arc::clone(&self.root),
            unreadable: Arc::clone(&self.unreadable),
            left: self.entries.clone().into_iter(),
        }
    }
}

/// The entries of a workspace, in order.
pub(super) struct Entries {
    root: Arc<PathBuf>,
    unreadable: Arc<Mutex<Option<String>>>,
    left: vec::IntoIter<Entry>,
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Opener>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.left.next()?;
        let open = matches!(entry.content, Content::File).then(|| Opener {
            path: self.root.join(&entry.path),
            device: entry.metadata.dev(),
            inode: entry.metadata.ino(),
            size: entry.metadata.size(),
            unreadable: Arc::clone(&self.unreadable),
        });
        Some(Ok(ReadSourceEntry {
            node: node(&entry),
            path: entry.path,
            open,
        }))
    }
}

/// What is stored of an entry: no owner, no setuid, no extended attributes, no tie between hard links.
fn node(entry: &Entry) -> Node {
    let metadata = &entry.metadata;
    let permissions = metadata.mode() & 0o777;
    let (node_type, mode, size) = match &entry.content {
        Content::Folder => (NodeType::Dir, permissions | GO_DIRECTORY, 0),
        Content::File => (NodeType::File, permissions, metadata.size()),
        Content::Link(target) => (NodeType::from_link(target), permissions | GO_SYMLINK, 0),
    };
    let mtime = time(metadata.mtime(), metadata.mtime_nsec());
    let name = entry.path.file_name().unwrap_or_default();
    Node::new_node(
        name,
        node_type,
        Metadata {
            mode: Some(mode),
            mtime,
            atime: mtime,
            // Change time and inode tell whether a file is the one that the parent has, also when its agent set its mtime.
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            size,
            ..Metadata::default()
        },
    )
}

/// A time that the restic format can hold (years 1 to 9999); others are left out.
fn time(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    const YEAR_1: i64 = -62_135_596_800;
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?)
        .ok()
        .filter(|time| time.as_second() > YEAR_1)
}

/// Opens a listed file, and nothing else that took its place.
pub(super) struct Opener {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    unreadable: Arc<Mutex<Option<String>>>,
}

impl Opener {
    fn file(&self) -> io::Result<File> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME).bits();
        let open = |flags: u32| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags.cast_signed())
                .open(&self.path)
        };
        // Only the owner may ask for no access time.
        let file = open(flags).or_else(|_| open(flags & !OFlags::NOATIME.bits()))?;
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) == (self.device, self.inode) {
            Ok(file)
        } else {
            Err(io::Error::other("it changed while it was read"))
        }
    }
}

impl ReadSourceOpen for Opener {
    type Reader = Reader;

    fn open(self) -> RusticResult<Reader> {
        match self.file() {
            Ok(file) => Ok(Reader {
                file: file.take(self.size),
                left: self.size,
                opener: self,
            }),
            Err(error) => {
                self.keep(&error);
                Err(RusticError::with_source(
                    ErrorKind::InputOutput,
                    "a file cannot be opened",
                    error,
                ))
            }
        }
    }
}

impl Opener {
    fn keep(&self, error: &io::Error) {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| format!("{} ({error})", self.path.display()));
    }
}

/// A file's bytes: exactly as many as were listed.
pub(super) struct Reader {
    file: Take<File>,
    left: u64,
    opener: Opener,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.file.read(buffer) {
            Ok(0) if self.left > 0 && !buffer.is_empty() => {
                Err(io::Error::other("it became shorter while it was read"))
            }
            other => other,
        };
        match &read {
            Ok(bytes) => self.left -= *bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.opener.keep(error),
        }
        read
    }
}
