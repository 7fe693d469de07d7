//! A child process that is watched by descriptor, whoever of our threads or helpers forked it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use super::error::{Doing, Error};
use super::syscalls::watch;

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
        let descriptor = open_process(pid).doing(|| format!("watching process {pid}"))?;
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

/// Opens a process that may not be our child.
pub(crate) fn open_process(pid: Pid) -> io::Result<Stranger> {
    watch(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}
