//! The note on disk by which a later start finds a container that was left over.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Doing, Error};
use super::process::{Stranger, open_process};

const FILE: &str = "container.json";

/// A process that cannot be taken for another: numbers are used again, but not at the same start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pid: i32,
    start_ticks: u64,
}

impl Record {
    pub(super) fn of(pid: Pid) -> Result<Self, Error> {
        let pid = pid.as_raw_nonzero().get();
        let start_ticks = start_ticks(pid)
            .doing(|| format!("looking at process {pid}"))?
            .ok_or_else(|| Error::NoAnswer("no such process".into()))?;
        Ok(Self { pid, start_ticks })
    }

    pub(super) fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::other);
        text.and_then(|text| fs::write(state_dir.join(FILE), text))
            .doing(|| format!("recording the container in {}", state_dir.display()))
    }

    /// The record in a folder of state; `None` if there is none, or, as after a crash, only a part of it.
    pub(super) fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(state_dir.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The process, if it still is the one that was recorded. It is opened before it is looked at: its number may be
    /// another's afterwards.
    pub(super) fn living(&self) -> io::Result<Option<Stranger>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let process = open_process(pid);
        if start_ticks(self.pid)? == Some(self.start_ticks) {
            process
        } else {
            Ok(None)
        }
    }
}

/// Field 22 of `/proc/PID/stat`, counted after the name, which may contain anything (`proc_pid_stat(5)`); `None`: there is no
/// such process.
fn start_ticks(pid: i32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let after_name = stat.rsplit_once(')').map(|(_, fields)| fields);
    let field = after_name.and_then(|fields| fields.split_whitespace().nth(19));
    Ok(field.and_then(|ticks| ticks.parse().ok()))
}

/// Before its file was opened, or between that and reading it.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::SRCH)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::again;

    fn ours() -> Record {
        let pid = i32::try_from(std::process::id()).unwrap();
        Record::of(Pid::from_raw(pid).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_process_number_that_was_used_again_is_not_the_recorded_process() {
        let now = ours();
        assert!(now.living().unwrap().is_some());
        let earlier = Record {
            start_ticks: now.start_ticks - 1,
            ..now
        };
        assert!(earlier.living().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_process_is_not_taken_for_dead_for_want_of_descriptors() {
        let name = "a_process_is_not_taken_for_dead_for_want_of_descriptors";
        if !again::is_again() {
            return again::succeeds(&format!("container::record::tests::{name}"));
        }
        let folder = tempfile::tempdir().unwrap();
        let record = ours();
        record.write(folder.path()).unwrap();
        for left in [0, 1] {
            let taken = again::take_descriptors_but(left);
            let living = record.living().map(|process| process.is_some());
            drop(taken);
            assert!(living.is_err(), "with {left} left: {living:?}");
        }
        let taken = again::take_descriptors_but(0);
        let read = Record::read(folder.path());
        drop(taken);
        assert!(read.is_err(), "{read:?}");
        assert_eq!(Record::read(folder.path()).unwrap(), Some(record));
        assert_eq!(Record::read(&folder.path().join("absent")).unwrap(), None);
    }
}
