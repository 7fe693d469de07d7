//! One running container, as the fleet holds it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::cgroup::{Cgroups, Usage};
use super::error::{Doing, Error};
use super::process::{Exit, Process};
use super::spec::{ContainerId, Limit};

/// How much of the end of a container's output is kept for the operator.
const LOG_BYTES: usize = 4096;

/// A running or ended container. Dropping it kills the container; [`Container::remove`] also clears up.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    process: Process,
    limits_missing: Vec<Limit>,
    cgroups: Arc<Cgroups>,
    state_dir: PathBuf,
    output: tokio::sync::Mutex<pipe::Receiver>,
    log: Mutex<Vec<u8>>,
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
        let process = Process::watch(pid)?;
        let output = pipe::Receiver::from_owned_fd(output.into())
            .doing(|| format!("reading container {id}"))?;
        Ok(Self {
            id,
            process,
            limits_missing,
            cgroups,
            state_dir,
            output: tokio::sync::Mutex::new(output),
            log: Mutex::default(),
        })
    }

    /// Its name.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The host's number of its first process.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The limits that were asked for and that this machine or user cannot set.
    pub fn limits_missing(&self) -> &[Limit] {
        &self.limits_missing
    }

    /// Waits until every process of the container has ended. Its output is read meanwhile, without which
    /// a container that writes much would stand still: keep one call going.
    ///
    /// # Cancel safety
    /// May be dropped and called again, also by several at once.
    pub async fn wait(&self) -> Result<Exit, Error> {
        let exit = tokio::select! {
            exit = self.process.wait() => exit?,
            () = self.read_output() => self.process.wait().await?,
        };
        // What it said last is in the pipe already, which the async runtime need not know yet: it is asked itself.
        if let Ok(output) = self.output.try_lock() {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = rustix::io::read(output.as_fd(), &mut buffer) {
                self.keep(&buffer[..count]);
            }
        }
        Ok(exit)
    }

    /// Sends SIGKILL to its first process, with which the kernel ends all others.
    pub fn kill(&self) -> Result<(), Error> {
        self.process.kill()
    }

    /// What it uses now; unknown where no control group counts it.
    pub fn usage(&self) -> Usage {
        self.cgroups.usage(&self.id)
    }

    /// The last of what its first process wrote, for the operator; an agent may have written it too.
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

    /// Ends when the container has closed its output, or never.
    async fn read_output(&self) {
        let mut output = self.output.lock().await;
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = output.read(&mut buffer).await {
            self.keep(&buffer[..count]);
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        let excess = log.len().saturating_sub(LOG_BYTES);
        log.drain(..excess);
    }
}

/// Removes what an ended container leaves. Its groups may look occupied for a moment after its end.
pub(super) async fn remove_traces(
    cgroups: &Cgroups,
    id: &ContainerId,
    state_dir: &Path,
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
