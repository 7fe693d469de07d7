//! The short-lived child that makes one container: reads a request, forks the container's first process
//! as a child of the runtime, helps it through its namespaces, answers and ends.
//!
//! Must be entered before the executable has started a second thread.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use carrel_telemetry::chain;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::error::{Doing, Error};
use super::first::{First, word};
use super::host::{privileged, process_limit_is_per_namespace};
use super::layout::{Host, arguments, layout};
use super::record::Record;
use super::spec::{CONTAINER_USER, ContainerSpec, HostIds, Limit};
use super::syscalls::{fork_sibling, unshare};

/// Makes a container; the word after the hidden subcommand.
pub(super) const CREATE: &str = "create";
/// Ends at once with success: what the trial container executes.
pub(super) const PROBE: &str = "probe";

/// One container to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) spec: ContainerSpec,
    pub(super) cgroups: Cgroups,
    /// The container's folder of state, with the folder that its root is attached at.
    pub(super) state_dir: PathBuf,
    /// The process that started us, and that the container belongs to.
    pub(super) parent: i32,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The command was executed.
    Started {
        pid: i32,
        limits_missing: Vec<Limit>,
    },
    /// It was not, and nothing is left.
    Refused { reason: String },
}

/// Runs the hidden subcommand of Carrel's executable; `args` are the words after it. Call it from `main`
/// before any thread, runtime or logger is started.
pub fn container_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match args
        .into_iter()
        .next()
        .as_deref()
        .and_then(|word| word.to_str())
    {
        Some(PROBE) => return ExitCode::SUCCESS,
        Some(CREATE) => {}
        _ => return ExitCode::from(2),
    }
    let answer = match read_request().and_then(|request| make(&request)) {
        Ok(Made::Container(answer)) => answer,
        // The container's first process, which failed and has told the maker why.
        Ok(Made::Nothing) => return ExitCode::FAILURE,
        Err(error) => Answer::Refused {
            reason: chain(&error),
        },
    };
    let written = serde_json::to_vec(&answer).map_err(std::io::Error::other);
    match written.and_then(|line| std::io::stdout().write_all(&line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

enum Made {
    Container(Answer),
    Nothing,
}

fn read_request() -> Result<Request, Error> {
    let mut text = Vec::new();
    std::io::stdin()
        .read_to_end(&mut text)
        .doing(|| "reading the request".into())?;
    serde_json::from_slice(&text).map_err(|error| Error::NoAnswer(error.to_string()))
}

fn make(request: &Request) -> Result<Made, Error> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "binding life to the parent's".into())?;
    let spec = &request.spec;
    let host = Host::look()?;
    let privileged = privileged();
    let first = First {
        root: &spec.root,
        pieces: &layout(spec, &host),
        argv: &arguments(spec, &host),
        env: &spec.env,
        hostname: &spec.hostname,
        limits: &spec.limits,
        holder: &request.state_dir.join("root"),
        privileged,
    };
    let (mut ours, mut theirs) = UnixStream::pair().doing(|| "making a socket pair".into())?;
    if !privileged {
        unshare(UnshareFlags::NEWUSER).doing(|| "entering a user namespace".into())?;
        map_ids("self", spec.host).doing(|| "mapping the user".into())?;
    }
    unshare(UnshareFlags::NEWPID).doing(|| "entering a process namespace".into())?;
    let Some(pid) = fork_sibling().doing(|| "forking".into())? else {
        drop(ours);
        let Err(error) = first.become_container(&mut theirs);
        let mut message = vec![word::FAILED];
        message.extend(chain(&error).into_bytes());
        let _ = theirs.write_all(&message);
        return Ok(Made::Nothing);
    };
    drop(theirs);
    // Before anything that may stand still: who gives us up finds by it whom to end and to reap.
    Record::of(pid)?.write(&request.state_dir)?;
    let limits_missing = attend(&mut ours, request, pid)?;
    Ok(Made::Container(Answer::Started {
        pid: pid.as_raw_nonzero().get(),
        limits_missing,
    }))
}

/// Answers the first process until it executes, which closes its end, or fails.
fn attend(first: &mut UnixStream, request: &Request, pid: Pid) -> Result<Vec<Limit>, Error> {
    let mut limits_missing = Vec::new();
    let mut question = [0];
    while first
        .read(&mut question)
        .doing(|| "reading the first process".into())?
        == 1
    {
        match question[0] {
            word::BORN => {
                limits_missing = request
                    .cgroups
                    .enter(&request.spec.id, &request.spec.limits, pid);
                if process_limit_is_per_namespace() {
                    limits_missing.retain(|limit| *limit != Limit::Pids);
                }
            }
            word::MAP => map_ids(&pid.as_raw_nonzero().to_string(), request.spec.host)
                .doing(|| "mapping the container's user".into())?,
            word::READY => {}
            _ => {
                let mut reason = String::new();
                // What arrived of the reason is better than none.
                let _ = first.read_to_string(&mut reason);
                return Err(Error::Refused(reason));
            }
        }
        // A parent that died after this check has killed us and the first process by its death signal.
        if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get())
            != Some(request.parent)
        {
            return Err(Error::Closed);
        }
        first
            .write_all(&[word::GO])
            .doing(|| "answering the first process".into())?;
    }
    Ok(limits_missing)
}

/// Maps the container's one user and group to the host's (`user_namespaces(7)`).
fn map_ids(process: &str, host: HostIds) -> std::io::Result<()> {
    let folder = PathBuf::from("/proc").join(process);
    fs::write(folder.join("setgroups"), "deny")?;
    fs::write(
        folder.join("gid_map"),
        format!("{CONTAINER_USER} {} 1", host.gid),
    )?;
    fs::write(
        folder.join("uid_map"),
        format!("{CONTAINER_USER} {} 1", host.uid),
    )
}
