//! The note on disk by which a later start finds a container that was left over.

use std::fs;
use std::path::Path;

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
        let start_ticks =
            start_ticks(pid).ok_or_else(|| Error::NoAnswer("no such process".into()))?;
        Ok(Self { pid, start_ticks })
    }

    pub(super) fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::other);
        text.and_then(|text| fs::write(state_dir.join(FILE), text))
            .doing(|| format!("recording the container in {}", state_dir.display()))
    }

    /// The record in a folder of state; `None` if there is none that can be read, as after a crash.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state_dir.join(FILE)).ok()?).ok()
    }

    /// The process, if it still is the one that was recorded. It is opened before it is looked at: its number may be
    /// another's afterwards.
    pub(super) fn living(&self) -> Option<Stranger> {
        let process = open_process(Pid::from_raw(self.pid)?).ok()?;
        (start_ticks(self.pid) == Some(self.start_ticks)).then_some(process)
    }
}

/// Field 22 of `/proc/PID/stat`, counted after the name, which may contain anything (`proc_pid_stat(5)`).
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_number_that_was_used_again_is_not_the_recorded_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let now = Record {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
        };
        assert!(now.living().is_some());
        let earlier = Record {
            start_ticks: now.start_ticks - 1,
            ..now
        };
        assert!(earlier.living().is_none());
    }
}
