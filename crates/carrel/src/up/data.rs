//! The data folder: held by one server at a time, with its keys and a commented configuration made on first use.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_vault::durable;
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
    durable::make_folder(dir, 0o700)
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
        file.sync_all()?;
        durable::sync_name(path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The folder to be made, for this program when it runs under `strace`.
    const RECORDED: &str = "CARREL_TEST_RECORDED";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test that starts itself again")]
    fn a_power_cut_leaves_the_data_folder_with_its_name_and_its_files() {
        if let Some(folder) = std::env::var_os(RECORDED) {
            let data = open(Path::new(&folder)).unwrap();
            return drop(read_or_make(&data.dir.join("key"), || Ok("k".to_owned())).unwrap());
        }
        let place = tempfile::tempdir().unwrap();
        let (above, record) = (place.path().join("above"), place.path().join("record"));
        let folder = above.join("data");
        let calls = "trace=?mkdir,mkdirat,openat,fsync";
        let name = "a_power_cut_leaves_the_data_folder_with_its_name_and_its_files";
        let ran = Command::new("strace")
            .args(["-f", "-y", "-qq", "-e", "signal=none", "-e", calls, "-o"])
            .arg(&record)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("up::data::tests::{name}")])
            .env(RECORDED, &folder)
            .status();
        let record = std::fs::read_to_string(&record).unwrap_or_default();
        if ran.is_err() || record.is_empty() {
            let required = std::env::var("CARREL_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|word| word == "strace"), "{ran:?}");
            println!("SKIP {name}: strace is not installed or may not trace here");
            return;
        }
        for made in [
            &above,
            &folder,
            &folder.join("carrel.yaml"),
            &folder.join("key"),
        ] {
            let quoted = format!("\"{}\"", made.display());
            let makes = |line: &str| {
                line.contains(&quoted) && (line.contains("mkdir") || line.contains("O_CREAT"))
            };
            let after = record.lines().skip_while(|line| !makes(line)).skip(1);
            let names = format!("<{}>)", made.parent().unwrap().display());
            let mut syncs = after.filter(|line| line.contains("fsync("));
            assert!(
                syncs.any(|line| line.contains(&names)),
                "{quoted}: {record}"
            );
        }
    }
}
