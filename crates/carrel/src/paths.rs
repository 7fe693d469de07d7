//! Where things lie on this machine.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::exit::{Failure, Kind};

/// The data folder: the named one, else `$XDG_DATA_HOME/carrel`, else `~/.local/share/carrel`.
pub(crate) fn data_dir(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = match named {
        Some(folder) => folder.to_path_buf(),
        None => environment("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| environment("HOME").map(|home| Path::new(&home).join(".local/share")))
            .map(|base| base.join("carrel"))
            .ok_or_else(|| {
                Failure::new(
                    Kind::Usage,
                    "HOME is not set: name a data folder by --data-dir",
                )
            })?,
    };
    Ok(std::path::absolute(folder)?)
}

/// The configuration to read: the named one, else that of the data folder, if it is there.
pub(crate) fn config_file(named: Option<PathBuf>, data_dir: &Path) -> Option<PathBuf> {
    named.or_else(|| Some(data_dir.join("carrel.yaml")).filter(|file| file.exists()))
}

/// The run folder of a data folder: short, because sockets' paths are, and on a disk.
pub(crate) fn run_dir(data_dir: &Path) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name = format!("carrel-{user}-{}", hex::encode(&digest[..5]));
    Path::new("/var/tmp").join(name)
}

/// Makes the run folder, passable for the users of pods.
pub(crate) fn make_run_dir(data_dir: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = run_dir(data_dir);
    match std::fs::DirBuilder::new().mode(0o711).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(&folder)?;
            if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
                let message = format!(
                    "{} is not a folder of ours that only we may write to: remove it",
                    folder.display()
                );
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            Ok(folder)
        }
        other => other.map(|()| folder),
    }
}

/// Makes our executable runnable for the users of pods, who may not pass through the folders it lies in.
pub(crate) fn shared_executable(run_dir: &Path) -> io::Result<PathBuf> {
    let (from, to) = (std::env::current_exe()?, run_dir.join("carrel"));
    match std::fs::remove_file(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if std::fs::hard_link(&from, &to).is_err() {
        std::fs::copy(&from, &to)?;
    }
    Ok(to)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the folders of the XDG specification are named by variables"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
