//! The learner's files, and nothing else: every path is walked from the root's descriptor without
//! following a link. Called by tools, transcript and memory; knows nothing of models.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

mod path;

pub(crate) use path::{InvalidPath, RelativePath};

/// Name under which a file is written before it takes its place.
const UNFINISHED: &str = ".unfinished";
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a file could not be read or written, in words that the model can act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Path(#[from] InvalidPath),
    #[error("there is no such file or folder")]
    NotFound,
    #[error("this is a link or a special file, which is not opened")]
    NotPlain,
    #[error("this is a folder")]
    IsFolder,
    #[error("the workspace is full")]
    Full,
    #[error("the file system refused: {0}")]
    Io(#[from] std::io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            // O_NOFOLLOW answers ELOOP for a link, ENOTDIR for a link where a folder must be.
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Self::NotPlain,
            Errno::ISDIR => Self::IsFolder,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full,
            other => Self::Io(other.into()),
        }
    }
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
}

/// What a listed thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
    /// Links, sockets, devices: shown, never opened.
    Other,
}

/// A piece of a file, and whether that was all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    pub(crate) total_bytes: u64,
}

/// The root folder, held open.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: Arc<OwnedFd>,
}

impl Workspace {
    /// Opens the folder that the container gave us.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self {
            root: Arc::new(root),
        })
    }

    /// Reads at most `most` bytes from `offset`.
    pub(crate) fn read(
        &self,
        path: &RelativePath,
        offset: u64,
        most: usize,
    ) -> Result<Piece, Error> {
        let (mut file, total_bytes) = self.open_file(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(Piece { bytes, total_bytes })
    }

    /// Reads at most the last `most` bytes.
    pub(crate) fn read_end(&self, path: &RelativePath, most: u64) -> Result<Piece, Error> {
        let (_, total_bytes) = self.open_file(path)?;
        let most_here = usize::try_from(most).unwrap_or(usize::MAX);
        self.read(path, total_bytes.saturating_sub(most), most_here)
    }

    /// Writes the whole file beside its place, then moves it there: no reader sees half of it, and
    /// a link that stands in its place is replaced, not followed.
    pub(crate) fn replace(&self, path: &RelativePath, content: &[u8]) -> Result<(), Error> {
        let (folder, name) = self.parent(path, Missing::Create)?;
        match rustix::fs::unlinkat(&folder, UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(other) => return Err(other.into()),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&folder, UNFINISHED, flags, mode)?);
        let written = file.write_all(content).map_err(from_io);
        let moved =
            written.and_then(|()| Ok(rustix::fs::renameat(&folder, UNFINISHED, &folder, name)?));
        if moved.is_err() {
            // The first error is the one to tell; what is left is overwritten next time.
            let _ = rustix::fs::unlinkat(&folder, UNFINISHED, AtFlags::empty());
        }
        moved
    }

    /// Adds to the end in one write; the file is made when it is not there.
    pub(crate) fn append(&self, path: &RelativePath, content: &[u8]) -> Result<(), Error> {
        let (folder, name) = self.parent(path, Missing::Create)?;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
        let mut file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(Error::NotPlain);
        }
        file.write_all(content).map_err(from_io)
    }

    /// What is in a folder, sorted by name, at most `most` of it, and whether there was more.
    pub(crate) fn list(
        &self,
        path: &RelativePath,
        most: usize,
    ) -> Result<(Vec<Listed>, bool), Error> {
        let folder = self.folder(path.components(), Missing::Refuse)?;
        let mut listed = Vec::new();
        let mut more = false;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be given back to us as a path: it is not shown.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            if listed.len() == most {
                more = true;
                break;
            }
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            listed.push(Listed {
                name: name.to_owned(),
                kind: match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Kind::Folder,
                    FileType::RegularFile => Kind::File,
                    _ => Kind::Other,
                },
                bytes: u64::try_from(stat.st_size).unwrap_or(0),
            });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((listed, more))
    }

    /// A plain file, opened, and its size. `NONBLOCK` so that a named pipe cannot hold us.
    fn open_file(&self, path: &RelativePath) -> Result<(File, u64), Error> {
        let (folder, name) = self.parent(path, Missing::Refuse)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Error::IsFolder);
        }
        if !metadata.is_file() {
            return Err(Error::NotPlain);
        }
        Ok((file, metadata.len()))
    }

    fn parent<'a>(
        &self,
        path: &'a RelativePath,
        missing: Missing,
    ) -> Result<(OwnedFd, &'a str), Error> {
        let (name, folders) = path.split_name().ok_or(Error::IsFolder)?;
        Ok((self.folder(folders, missing)?, name))
    }

    fn folder(&self, components: &[String], missing: Missing) -> Result<OwnedFd, Error> {
        let mut folder = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for component in components {
            folder = match rustix::fs::openat(&folder, component, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) if missing == Missing::Create => {
                    rustix::fs::mkdirat(&folder, component, Mode::from_raw_mode(0o755))?;
                    rustix::fs::openat(&folder, component, DIRECTORY, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(folder)
    }
}

/// What to do about a folder that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Refuse,
}

fn from_io(error: std::io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => Error::Io(error),
    }
}

#[cfg(test)]
mod tests;
