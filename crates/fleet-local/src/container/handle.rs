//! One running container, as the fleet holds it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;

use super::cgroup::{Cgroups, Usage};
use super::error::{Doing, Error};
use super::spec::{ContainerId, Limit};
use super::syscalls::watch;

/// How much of the end of a container's output is kept for the operator.
const LOG_BYTES: usize = 4096;

/// How a container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A running or ended container. Dropping it kills the container; [`Container::remove`] also clears up.
#[derive(Debug)]
pub struct Container {
    pub(super) id: ContainerId,
    pub(super) pid: Pid,
    pub(super) limits_missing: Vec<Limit>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) state_dir: PathBuf,
    process: AsyncFd<OwnedFd>,
    output: tokio::sync::Mutex<pipe::Receiver>,
    log: Mutex<Vec<u8>>,
    exit: OnceCell<Exit>,
}

impl Container {
    pub(super) fn new(
        id: ContainerId,
        pid: Pid,
        limits_missing: Vec<Limit>,
        cgroups: Arc<Cgroups>,
        state_dir: PathBuf,
        output: io::PipeReader,
    ) -> Result<Self, Error> {
        let process = open_process(pid).doing(|| format!("watching container {id}"))?;
        let output = pipe::Receiver::from_owned_fd(output.into())
            .doing(|| format!("reading container {id}"))?;
        Ok(Self {
            id,
            pid,
            limits_missing,
            cgroups,
            state_dir,
            process,
            output: tokio::sync::Mutex::new(output),
            log: Mutex::default(),
            exit: OnceCell::new(),
        })
    }

    /// Its name.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The host's number of its first process.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The limits that were asked for and that this machine or user cannot set.
    pub fn limits_missing(&self) -> &[Limit] {
        &self.limits_missing
    }

    /// Waits until every process of the container has ended. The container's output is read meanwhile.
    ///
    /// # Cancel safety
    /// May be dropped and called again, also by several at once.
    pub async fn wait(&self) -> Result<Exit, Error> {
        let wait = async {
            let mut output = self.output.lock().await;
            let mut buffer = [0; 1024];
            let mut open = true;
            loop {
                tokio::select! {
                    ready = self.process.readable() => {
                        ready.doing(|| format!("waiting for container {}", self.id))?.clear_ready();
                        if let Some(exit) = self.reap()? {
                            // What it said last is in the pipe already.
                            while let Ok(count @ 1..) = output.try_read(&mut buffer) {
                                self.keep(&buffer[..count]);
                            }
                            return Ok(exit);
                        }
                    }
                    read = output.read(&mut buffer), if open => match read {
                        Ok(count @ 1..) => self.keep(&buffer[..count]),
                        _ => open = false,
                    },
                }
            }
        };
        self.exit.get_or_try_init(|| wait).await.copied()
    }

    /// Sends SIGKILL to its first process, with which the kernel ends all others.
    pub fn kill(&self) -> Result<(), Error> {
        match rustix::process::pidfd_send_signal(self.process.as_fd(), Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            other => other.doing(|| format!("killing container {}", self.id)),
        }
    }

    /// What it uses now; unknown where no control group counts it.
    pub fn usage(&self) -> Usage {
        self.cgroups.usage(&self.id)
    }

    /// The last lines that its first process wrote, for the operator; an agent may have written them too.
    pub fn last_output(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends it if it runs, and removes its control groups and its folder of state. May be repeated.
    pub async fn remove(&self) -> Result<Exit, Error> {
        self.kill()?;
        let exit = self.wait().await?;
        remove_traces(&self.cgroups, &self.id, &self.state_dir).await?;
        Ok(exit)
    }

    fn reap(&self) -> Result<Option<Exit>, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), options)
            .doing(|| format!("reaping container {}", self.id))?;
        Ok(status.map(
            |status| match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or_default()),
            },
        ))
    }

    fn keep(&self, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        let excess = log.len().saturating_sub(LOG_BYTES);
        log.drain(..excess);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.exit.initialized() {
            // Both fail only if it has ended already; a zombie is reaped when our process ends.
            let _ = self.kill();
            let _ = self.reap();
        }
    }
}

/// A descriptor that becomes readable when the process ends.
pub(super) fn open_process(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let process = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    watch(process)
}

/// Removes what an ended container leaves. Its groups may look occupied for a moment after its end.
pub(super) async fn remove_traces(
    cgroups: &Cgroups,
    id: &ContainerId,
    state_dir: &std::path::Path,
) -> Result<(), Error> {
    let mut tries = 0;
    while let Err(error) = cgroups.remove(id) {
        tries += 1;
        if tries > 50 {
            return Err(error).doing(|| format!("removing the control groups of {id}"));
        }
        cgroups.kill(id);
        tokio::time::sleep(Duration::from_millis(tries)).await;
    }
    match tokio::fs::remove_dir_all(state_dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("removing {}", state_dir.display())),
    }
}
