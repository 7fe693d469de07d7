//! All processes that we are responsible for: those of our pid namespace when we are its first, else our descendants,
//! which come to us when their parents end.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid};

use super::protocol::End;

/// How long freezing may take.
const FREEZE_WITHIN: Duration = Duration::from_secs(5);
/// After this a process that waits in the kernel counts as stopped: it cannot come back from there without stopping.
/// Parents wait so for a child between `vfork` and `exec`, and that child is stopped already.
const KERNEL_PATIENCE: Duration = Duration::from_millis(100);
/// How long killing may take.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// All processes that we are responsible for.
#[derive(Debug)]
pub(super) struct Processes {
    own: Pid,
}

impl Processes {
    /// Takes responsibility.
    pub(super) fn adopt() -> io::Result<Self> {
        let own = getpid();
        if own != Pid::INIT {
            rustix::process::set_child_subreaper(Some(own))?;
        }
        Ok(Self { own })
    }

    /// Whether nobody else is in our pid namespace.
    pub(super) fn are_alone(&self) -> bool {
        self.own == Pid::INIT
    }

    /// Sends a signal to each.
    fn signal_all(&self, signal: Signal) -> io::Result<()> {
        if self.are_alone() {
            // To every process but ourselves, at once.
            return match rustix::process::kill_process_group(Pid::INIT, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        for pid in self.list()? {
            // One that has ended needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
        Ok(())
    }

    /// Stops each, and comes back when none runs.
    pub(super) fn freeze(&self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            self.signal_all(Signal::STOP)?;
            let before = self.list()?;
            let patient = began.elapsed() > KERNEL_PATIENCE;
            // Stopped processes start none: if all of a list are, and the list is the same after, it is all of them.
            if before.iter().all(|pid| is_stopped(*pid, patient)) && self.list()? == before {
                return Ok(());
            }
            if began.elapsed() > FREEZE_WITHIN {
                return Err(io::Error::other("the agent's processes cannot be stopped"));
            }
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// Lets each go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Kills each; comes back when all are gone, with those that were our children.
    pub(super) fn kill_all(&self) -> io::Result<Vec<(Pid, End)>> {
        let (began, mut ended) = (Instant::now(), Vec::new());
        while began.elapsed() < KILL_WITHIN {
            self.signal_all(Signal::KILL)?;
            while let Some(child) = reap_one()? {
                ended.push(child);
            }
            if self.list()?.is_empty() {
                return Ok(ended);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other("the agent's processes cannot be ended"))
    }

    /// Each that there is now.
    pub(super) fn list(&self) -> io::Result<HashSet<Pid>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.parse().ok())
                .and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|pid| *pid != self.own) {
                all.push(pid);
            }
        }
        if self.are_alone() {
            return Ok(all.into_iter().collect());
        }
        let parents: Vec<(Pid, Pid)> = all
            .into_iter()
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let mut ours = HashSet::new();
        let mut found = usize::MAX;
        while found != ours.len() {
            found = ours.len();
            for (pid, parent) in &parents {
                if *parent == self.own || ours.contains(parent) {
                    ours.insert(*pid);
                }
            }
        }
        Ok(ours)
    }
}

/// Takes note of one child that has ended, if there is one.
pub(super) fn reap_one() -> io::Result<Option<(Pid, End)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            let signal = status.terminating_signal().map(End::Signal);
            let code = status.exit_status().map(End::Code);
            Ok(Some((pid, signal.or(code).unwrap_or(End::Code(-1)))))
        }
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(rustix::io::Errno::INTR) => reap_one(),
        Err(error) => Err(error.into()),
    }
}

/// The fields of `/proc/…/stat` after the name (proc(5)): state, parent …
pub(super) fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    after_name(&stat)
        .nth(1)?
        .parse()
        .ok()
        .and_then(Pid::from_raw)
}

/// Whether no thread of it can run. One that has ended counts.
fn is_stopped(pid: Pid, patient: bool) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else {
            return true;
        };
        match after_name(&stat).next() {
            None | Some("T" | "t" | "Z" | "X") => true,
            Some("D") => patient,
            Some(_) => false,
        }
    })
}
