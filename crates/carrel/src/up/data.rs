//! The data folder: held by one server at a time, with its keys and a commented configuration made on first use.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::FlockOperation;

use crate::exit::{Failure, Kind};

const DEFAULT_CONFIG: &str = include_str!("carrel.yaml");

/// The data folder while we hold it.
#[derive(Debug)]
pub(super) struct Data {
    /// The folder.
    pub(super) dir: PathBuf,
    _lock: File,
}

/// Opens the folder for us alone.
///
/// # Errors
/// [`Kind::Conflict`] with the other's pid when a server runs on it.
pub(super) fn open(dir: &Path) -> anyhow::Result<Data> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making the data folder {}", dir.display()))?;
    let lock = lock(dir)?;
    let config = dir.join("carrel.yaml");
    if !config.exists() {
        write_private(&config, DEFAULT_CONFIG)?;
    }
    Ok(Data {
        dir: dir.to_path_buf(),
        _lock: lock,
    })
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        let message = format!(
            "a server runs on {} already, with pid {}: stop it, or name another folder by --data-dir",
            dir.display(),
            pid.trim()
        );
        return Err(Failure::new(Kind::Conflict, message).into());
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// A file's text; made by `make` with mode 0600 when it is not there.
pub(super) fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let mode = std::fs::metadata(path)?.permissions().mode();
            if mode & 0o077 != 0 {
                let message = format!(
                    "{} may be read by others: run 'chmod 600 {}'",
                    path.display(),
                    path.display()
                );
                return Err(Failure::new(Kind::NotAllowed, message).into());
            }
            Ok(text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(path, &text)?;
            Ok(text)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}
