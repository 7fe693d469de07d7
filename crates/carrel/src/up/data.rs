//! The data folder: held by one server at a time, with its keys and a commented configuration made on first use.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_vault::durable;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::exit::{Failure, Kind};

const LOCK: &str = "lock";
/// A child that a killed server was just starting holds what its parent held until it is another program.
const LEFT_FOR: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const DEFAULT_CONFIG: &str = include_str!("carrel.yaml");

/// The data folder, while we hold it.
#[derive(Debug)]
pub(super) struct Data {
    /// The folder.
    pub(super) dir: PathBuf,
    lock: Option<File>,
}

impl Data {
    /// Holds a folder on which a server has run before; makes nothing of one on which none has.
    ///
    /// # Errors
    /// [`Kind::Conflict`] with the other's pid when a server runs on it.
    pub(super) fn hold(dir: &Path) -> anyhow::Result<Self> {
        let is_known = dir.join(LOCK).exists();
        Ok(Self {
            lock: is_known.then(|| lock(dir)).transpose()?,
            dir: dir.to_path_buf(),
        })
    }

    /// Makes what is not there: the folder, which is held from then on, and the commented configuration.
    ///
    /// # Errors
    /// As [`Self::hold`], and when it cannot be made.
    pub(super) fn make(&mut self) -> anyhow::Result<()> {
        if self.lock.is_none() {
            durable::make_folder(&self.dir, 0o700)
                .with_context(|| format!("making the data folder {}", self.dir.display()))?;
            self.lock = Some(lock(&self.dir)?);
        }
        let config = self.dir.join("carrel.yaml");
        if config.exists() {
            return Ok(());
        }
        durable::make_file(&config, DEFAULT_CONFIG.as_bytes())
            .with_context(|| format!("writing {}", config.display()))
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let deadline = Instant::now() + LEFT_FOR;
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.rewind()?;
        file.read_to_string(&mut pid)?;
        if has_ended(&pid) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
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

/// Whether the server that wrote its number is gone.
fn has_ended(pid: &str) -> bool {
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// The text of a file of keys; `None` when it is not there.
///
/// # Errors
/// When it is empty, or others may read it.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let place = path.display();
    if carrel_vault::is_open_to_others(&std::fs::metadata(path)?) {
        let message = format!("{place} may be read by others: run 'chmod 600 {place}'");
        return Err(Failure::new(Kind::NotAllowed, message).into());
    }
    if text.trim().is_empty() {
        let message = format!("{place} is empty: remove it, and the next start makes a new one");
        return Err(Failure::new(Kind::Usage, message).into());
    }
    durable::clear_beside(path);
    Ok(Some(text))
}

/// A file's text; made by `new` with mode 0600 when it is not there. What another start made meanwhile is taken.
pub(super) fn read_or_make(
    path: &Path,
    new: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    match durable::make_file(path, new()?.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("writing {}", path.display()));
        }
        _ => {}
    }
    read(path)?.with_context(|| format!("{} was made and is gone", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::{Barrier, mpsc};
    use std::thread;

    use super::*;

    /// The folder to be made, for this program when it runs under `strace`.
    const RECORDED: &str = "CARREL_TEST_RECORDED";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test that starts itself again")]
    fn a_power_cut_leaves_the_data_folder_with_its_name_and_its_files() {
        if let Some(folder) = std::env::var_os(RECORDED) {
            let mut data = Data::hold(Path::new(&folder)).unwrap();
            data.make().unwrap();
            return drop(read_or_make(&data.dir.join("key"), || Ok("k".to_owned())).unwrap());
        }
        let place = tempfile::tempdir().unwrap();
        let (above, record) = (place.path().join("above"), place.path().join("record"));
        let folder = above.join("data");
        let calls = "trace=?mkdir,mkdirat,openat,?link,linkat,fsync";
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
                line.contains(&quoted) && (line.contains("mkdir") || line.contains("link"))
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

    #[test]
    fn what_a_killed_server_was_starting_holds_the_folder_for_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let mut data = Data::hold(folder.path()).unwrap();
        data.make().unwrap();
        let lock = data.lock.as_ref().unwrap().try_clone().unwrap();
        // It lives until what it reads is closed.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(lock)
            .spawn()
            .unwrap();
        drop(data);
        let held_after = |pid: u32| {
            std::fs::write(folder.path().join(LOCK), pid.to_string()).unwrap();
            Data::hold(folder.path())
        };
        assert!(held_after(std::process::id()).is_err(), "a server runs");
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        thread::scope(|scope| {
            let (say, said) = mpsc::channel();
            let (hold, gone) = (&held_after, gone.id());
            scope.spawn(move || say.send(hold(gone).map(drop)));
            // Who does not wait says so at the first look.
            let early = said.recv_timeout(LOOK_AGAIN * 10);
            assert!(early.is_err(), "it did not wait: {early:?}");
            drop(child.stdin.take());
            said.recv().unwrap().unwrap();
        });
        child.wait().unwrap();
    }

    #[test]
    fn starts_that_make_a_key_at_once_take_the_same_and_leave_no_copy_of_it() {
        for round in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            let left = folder.path().join(format!("key.{}.new", "0".repeat(32)));
            std::fs::write(&left, "an earlier key").unwrap();
            let begin = Barrier::new(8);
            let start = |number: usize| {
                let new = || {
                    begin.wait();
                    Ok(number.to_string().repeat(1000))
                };
                read_or_make(&path, new).unwrap()
            };
            let taken: Vec<String> = thread::scope(|scope| {
                let starts: Vec<_> = (0..8)
                    .map(|number| scope.spawn(move || start(number)))
                    .collect();
                starts
                    .into_iter()
                    .map(|start| start.join().unwrap())
                    .collect()
            });
            let kept = std::fs::read_to_string(&path).unwrap();
            assert!(taken.iter().all(|key| *key == kept), "round {round}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
