//! Changes to the files below one folder that never leave it: links on the way to a file are followed as
//! if the folder were `/` (openat2(2), `RESOLVE_IN_ROOT`), and the file itself is never a link's target.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A folder that nothing done here leaves.
pub(super) struct Confined {
    root: OwnedFd,
}

/// A name in an opened folder.
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
}

impl Confined {
    /// Confines to this folder, which must exist.
    pub(super) fn to(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
        })
    }

    /// The place of a path; its folders are made if they are missing and `make` is set. `None` for the
    /// root itself and, without `make`, where there is no such folder.
    pub(super) fn place(&self, path: &Path, make: bool) -> io::Result<Option<Place>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::other(format!(
                        "{} leaves the image",
                        path.display()
                    )));
                }
            }
        }
        let Some(name) = names.pop() else {
            return Ok(None);
        };
        let mut above = PathBuf::new();
        let mut folder = self.open_folder(Path::new("."))?;
        for part in names {
            above.push(part);
            folder = match self.open_folder(&above) {
                Ok(next) => next,
                // Nothing, a link to nothing, or a file of a lower layer: a folder takes its place.
                Err(Errno::NOENT | Errno::NOTDIR) if make => {
                    let missing = Place {
                        folder,
                        name: part.to_owned(),
                    };
                    missing.make_folder(0o755)?;
                    self.open_folder(&above)?
                }
                Err(Errno::NOENT | Errno::NOTDIR) if !make => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(Place {
            folder,
            name: name.to_owned(),
        }))
    }

    fn open_folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(
            &self.root,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )
    }
}

impl Place {
    /// What is there, without following it.
    pub(super) fn kind(&self) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same folder with another name in it.
    pub(super) fn beside(self, name: &OsStr) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Removes what is there, a folder with all that is in it.
    pub(super) fn clear(&self) -> io::Result<()> {
        match self.kind()? {
            None => Ok(()),
            Some(FileType::Directory) => std::fs::remove_dir_all(self.path()),
            Some(_) => Ok(rustix::fs::unlinkat(
                &self.folder,
                &self.name,
                AtFlags::empty(),
            )?),
        }
    }

    /// Removes everything in the folder of this place.
    pub(super) fn clear_folder(&self) -> io::Result<()> {
        let folder = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        for entry in std::fs::read_dir(folder)? {
            let place = Self {
                folder: self.folder.try_clone()?,
                name: entry?.file_name(),
            };
            place.clear()?;
        }
        Ok(())
    }

    /// Makes it a folder, unless it is one.
    pub(super) fn make_folder(&self, mode: u32) -> io::Result<()> {
        if self.kind()? != Some(FileType::Directory) {
            self.clear()?;
            rustix::fs::mkdirat(&self.folder, &self.name, Mode::from_raw_mode(0o755))?;
        }
        // Not a link, as was just seen, and nobody else writes here.
        Ok(rustix::fs::chmodat(
            &self.folder,
            &self.name,
            Mode::from_raw_mode(mode),
            AtFlags::empty(),
        )?)
    }

    /// Makes it a new file.
    pub(super) fn make_file(&self, mode: u32) -> io::Result<File> {
        self.clear()?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &self.name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(File::from(file))
    }

    /// Makes it a symbolic link, to anywhere: it will be followed inside a container only.
    pub(super) fn make_link(&self, to: &Path) -> io::Result<()> {
        self.clear()?;
        Ok(rustix::fs::symlinkat(to, &self.folder, &self.name)?)
    }

    /// Makes it another name of the file at a place.
    pub(super) fn make_same_as(&self, other: &Self) -> io::Result<()> {
        self.clear()?;
        let (from, to) = (other.folder.as_fd(), self.folder.as_fd());
        Ok(rustix::fs::linkat(
            from,
            &other.name,
            to,
            &self.name,
            AtFlags::empty(),
        )?)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(&self.name)
    }
}
