//! A child process that is watched by descriptor, whoever of our threads or helpers forked it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use super::error::{Doing, Error};
use super::syscalls::watch;

/// What is killed and not gone by then, the kernel holds.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A child of this process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    descriptor: AsyncFd<OwnedFd>,
    exit: OnceCell<Exit>,
}

impl Process {
    /// Watches a child that nobody else waits for.
    pub(super) fn watch(pid: Pid) -> Result<Self, Error> {
        let descriptor = open_process(pid)
            .and_then(|process| process.ok_or(Errno::SRCH.into()))
            .doing(|| format!("watching process {pid}"))?;
        Ok(Self {
            pid,
            descriptor,
            exit: OnceCell::new(),
        })
    }

    /// Its number on the host.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until it has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again, also by several at once.
    pub(super) async fn wait(&self) -> Result<Exit, Error> {
        let wait = async {
            loop {
                let mut ready = self
                    .descriptor
                    .readable()
                    .await
                    .doing(|| format!("waiting for process {}", self.pid))?;
                if let Some(exit) = self.reap()? {
                    return Ok(exit);
                }
                ready.clear_ready();
            }
        };
        self.exit.get_or_try_init(|| wait).await.copied()
    }

    /// Sends SIGKILL, unless it has ended.
    pub(super) fn kill(&self) -> Result<(), Error> {
        match rustix::process::pidfd_send_signal(self.descriptor.as_fd(), Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            other => other.doing(|| format!("killing process {}", self.pid)),
        }
    }

    fn reap(&self) -> Result<Option<Exit>, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.descriptor.as_fd()), options)
            .doing(|| format!("reaping process {}", self.pid))?;
        Ok(status.map(
            |status| match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or_default()),
            },
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.exit.initialized() {
            // Both fail only if it has ended already; a zombie is reaped when our process ends.
            let _ = self.kill();
            let _ = self.reap();
        }
    }
}

/// A process that may not be our child, by a descriptor that becomes readable when it ends and never means another.
pub(crate) type Stranger = AsyncFd<OwnedFd>;

/// Opens a process that may not be our child; `None`: there is none of this number. One that cannot be opened, for want of
/// descriptors perhaps, may well live.
///
/// A number outlives its process as that of a group or a session. Linux before 6.14 then speaks of an invalid argument, and
/// newer ones of no such process, or of no such entry while it is being reaped.
pub(crate) fn open_process(pid: Pid) -> io::Result<Option<Stranger>> {
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(process) => watch(process).map(Some),
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Kills a process and waits until it is gone.
pub(crate) async fn end_process(process: &Stranger) -> io::Result<()> {
    if rustix::process::pidfd_send_signal(process.get_ref(), Signal::KILL).is_ok() {
        let gone = tokio::time::timeout(KILLED_WITHIN, process.readable()).await;
        gone.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            .retain_ready();
    }
    Ok(())
}

/// Lets go of a process that has ended and that nobody else waits for; one that was not our child was somebody else's to reap.
pub(super) fn reap_stranger(process: &Stranger) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = rustix::process::waitid(WaitId::PidFd(process.as_fd()), options);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_number_that_is_only_a_groups_is_of_no_process() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!"])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let group = Pid::from_child(&shell);
        let mut other = String::new();
        let mut said = BufReader::new(shell.stdout.take().unwrap());
        said.read_line(&mut other).unwrap();
        let other = Pid::from_raw(other.trim().parse().unwrap()).unwrap();
        shell.wait().unwrap();
        let (leader, member) = (open_process(group), open_process(other));
        rustix::process::kill_process_group(group, Signal::KILL).unwrap();
        assert!(leader.unwrap().is_none());
        assert!(member.unwrap().is_some());
    }
}
