//! The worker's side of the conversation.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};

use super::backup::backup;
use super::error::Failure;
use super::request::{Answer, Outcome, Request, Task};
use super::restore::restore;

/// The most that a request may take.
const REQUEST_BYTES: u64 = 1024 * 1024;

/// The hidden subcommand `snapshot-worker`: one request on stdin, one answer on stdout. Dies with its parent, and leaves
/// no core file and no door for a tracer: it holds a key.
pub fn worker_main() -> ExitCode {
    let bound = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().take(REQUEST_BYTES).read_to_string(&mut text);
    let (Ok(()), Ok(_), Ok(request)) = (bound, read, serde_json::from_str::<Request>(&text)) else {
        return ExitCode::from(2);
    };
    let parent = i32::try_from(request.parent_pid)
        .ok()
        .and_then(Pid::from_raw);
    if getppid() != parent {
        return ExitCode::FAILURE;
    }
    let answer =
        catch_unwind(AssertUnwindSafe(|| perform(&request))).unwrap_or(Err(Failure::Crashed));
    let answer = match answer {
        Ok(outcome) => Answer::Done(outcome),
        Err(failure) => Answer::Failed(failure),
    };
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|answer| io::stdout().write_all(&answer));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn perform(request: &Request) -> Result<Outcome, Failure> {
    match &request.task {
        Task::Backup {
            workspace,
            parent,
            limits,
        } => backup(&request.repository, workspace, parent.as_ref(), limits).map(Outcome::Backup),
        Task::Restore {
            workspace,
            snapshot,
        } => restore(&request.repository, workspace, snapshot).map(Outcome::Restore),
    }
}
