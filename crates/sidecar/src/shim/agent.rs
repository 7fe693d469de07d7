//! Starts the agent.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Pid;

use super::protocol::{Pipes, Wanted};

/// What an agent keeps of our environment when that is not its container's own.
const KEPT: [&str; 2] = ["PATH", "TMPDIR"];

/// Starts it in a process group of its own. `alone`: we are a container's first process, and our environment is what
/// the container was given for the agent.
pub(super) fn start(wanted: &Wanted, alone: bool) -> io::Result<(Pid, Vec<OwnedFd>)> {
    let Some((program, arguments)) = wanted.argv.split_first() else {
        return Err(io::Error::other(
            "neither the class nor its image names a command",
        ));
    };
    fs::create_dir_all(&wanted.home)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| alone || KEPT.iter().any(|k| name == k)))
        .envs(wanted.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&wanted.folder)
        .process_group(0);
    let ours = match wanted.pipes {
        Pipes::Log => {
            let (read, write) = io::pipe()?;
            command
                .stdin(Stdio::null())
                .stdout(write.try_clone()?)
                .stderr(write);
            vec![OwnedFd::from(read)]
        }
        Pipes::Talk => {
            let (input, to) = io::pipe()?;
            let (from, output) = io::pipe()?;
            let (log, error) = io::pipe()?;
            command.stdin(input).stdout(output).stderr(error);
            vec![to.into(), from.into(), log.into()]
        }
    };
    let child = command
        .spawn()
        .map_err(|error| io::Error::other(format!("starting '{program}': {error}")))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.map(|pid| (pid, ours))
        .ok_or_else(|| io::Error::other("the agent's process id is out of range"))
}
