//! Waiting for what shows itself by no event, and for the end of a process.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than anything takes on a machine that is busy with other things, too.
const LONG: Duration = Duration::from_mins(1);

/// Looks until it holds; fails the test, saying what was waited for, when that takes a minute.
pub async fn until<F>(what: &str, holds: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let seen = async {
        while !holds().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let seen = tokio::time::timeout(LONG, seen).await;
    assert!(seen.is_ok(), "never seen: {what}");
}

/// Waits until a process has ended, or for so long; whether it has. It may be a child for which nobody has waited yet.
///
/// # Panics
/// When this machine cannot say.
pub fn ends(pid: u32, within: Duration) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = match pidfd_open(pid.expect("a process has a number"), PidfdFlags::empty()) {
        Err(Errno::SRCH) => return true,
        opened => opened.expect("this machine can say"),
    };
    let within = within.try_into().expect("not for ever");
    let mut end = [PollFd::new(&process, PollFlags::IN)];
    retry_on_intr(|| poll(&mut end, Some(&within))).expect("it can be waited for") > 0
}
