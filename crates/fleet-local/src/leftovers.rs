//! What is left of pods on this machine: their processes and their folders. Containers clear themselves (see
//! [`crate::container::Runtime::sweep`]).
//!
//! Processes that no container holds together are found by what they were started with. Called when a fleet starts, for
//! what an earlier one left, and when a pod without isolation has ended, whose agent may have outlived its shim.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::container::{Stranger, end_process, open_process};
use crate::removal::remove_folder;

/// How often processes that start others meanwhile are looked for again.
const ROUNDS: usize = 100;

/// Ends every process that works in a pod's folder below `pods_dir`, and removes the folders; then makes it anew.
pub(crate) async fn clear(pods_dir: &Path) -> io::Result<()> {
    end_processes(pods_dir).await?;
    remove_folder(pods_dir.to_owned()).await?;
    let mut builder = tokio::fs::DirBuilder::new();
    builder.mode(0o711).create(pods_dir).await
}

/// Ends every process that was started for what is below a folder: comes back when none is left but those that the kernel
/// does not let go, which are named to the operator.
///
/// Nobody waits for those for ever, and their learners may be woken: a process that is killed executes no more of its own
/// code, whenever the kernel lets it go; its folder is nobody's after it, for no pod's name comes again; and what it had
/// sent before is refused by the fence, which the next incarnation raises before it reads or writes anything.
pub(crate) async fn end_processes(folder: &Path) -> io::Result<()> {
    let mut stuck = BTreeSet::new();
    for _ in 0..ROUNDS {
        let (below, known) = (folder.to_owned(), stuck.clone());
        let found = tokio::task::spawn_blocking(move || started_below(&below, &known));
        let found = found.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        if found.is_empty() {
            return Ok(());
        }
        let ends = found
            .into_iter()
            .map(|(pid, process)| async move { (pid, end_process(&process).await) });
        for (pid, ended) in futures::future::join_all(ends).await {
            if let Err(error) = ended {
                tracing::warn!(
                    pid,
                    %error,
                    "a process of an ended pod was killed and does not end: look at what the kernel holds it for"
                );
                stuck.insert(pid);
            }
        }
    }
    Err(io::Error::other("its processes start others without end"))
}

/// The processes that were started for what is below a folder, but for those that are known. More than there are descriptors
/// for are found when these have ended.
fn started_below(folder: &Path, known: &BTreeSet<i32>) -> io::Result<Vec<(i32, Stranger)>> {
    let path = format!("{}/", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| !known.contains(pid)) else {
            continue;
        };
        match open_if_started_for(&path, pid) {
            Ok(None) => {}
            Ok(Some(process)) => found.push((pid, process)),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(found)
}

/// Sidecars and shims, whose arguments name a path below the folder, and agents, whose environment does: whatever an agent
/// starts inherits it. Each is opened before it is looked at: its number may be another's by the time it is killed.
fn open_if_started_for(path: &str, pid: i32) -> io::Result<Option<Stranger>> {
    let Some(process) = Pid::from_raw(pid).map_or(Ok(None), open_process)? else {
        return Ok(None);
    };
    let arguments = words(pid, "cmdline")?;
    let role = arguments.split('\0').nth(1);
    let is_ours = (role == Some("sidecar") || role == Some("shim")) && arguments.contains(path);
    if is_ours {
        return Ok(Some(process));
    }
    let environment = words(pid, "environ")?;
    let workspace = format!("CARREL_WORKSPACE={path}");
    let mut variables = environment.split('\0');
    let is_agents = variables.any(|variable| variable.starts_with(&workspace));
    Ok(is_agents.then_some(process))
}

/// What a process was started with: nothing of one that is gone, or that is another user's.
fn words(pid: i32, file: &str) -> io::Result<String> {
    match std::fs::read(format!("/proc/{pid}/{file}")) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if is_short_of_descriptors(&error) => Err(error),
        Err(_) => Ok(String::new()),
    }
}

fn is_short_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use super::*;
    use crate::again;

    /// The folder of pods, for this program when it runs beside a process that cannot be killed.
    const PODS: &str = "CARREL_TEST_PODS";
    const WORKSPACE: &str = "CARREL_WORKSPACE";

    fn agent_of(pod: &Path) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env(WORKSPACE, pod.join("workspace"));
        command.spawn().unwrap()
    }

    /// No process ends the first one of its own namespace: here that is one of an ended pod.
    #[test]
    fn a_process_that_does_not_end_holds_up_neither_a_start_nor_the_end_of_others() {
        let name = "a_process_that_does_not_end_holds_up_neither_a_start_nor_the_end_of_others";
        if let Some(pods) = std::env::var_os(PODS) {
            return clear_beside_another(&PathBuf::from(pods));
        }
        let place = tempfile::tempdir().unwrap();
        let pods = place.path().join("p");
        let test = format!("leftovers::tests::{name}");
        let Some(mut command) = again::below_one_that_nobody_ends(&test) else {
            println!("SKIP {name}: no namespace can be entered here");
            return;
        };
        let ran = command
            .env(WORKSPACE, pods.join("one/workspace"))
            .env(PODS, &pods)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn clear_beside_another(pods: &Path) {
        std::fs::create_dir_all(pods.join("one/workspace")).unwrap();
        let mut other = agent_of(&pods.join("two"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(clear(pods)).unwrap();
        assert!(!other.wait().unwrap().success(), "it was killed");
        assert_eq!(std::fs::read_dir(pods).unwrap().count(), 0);
        let first = Pid::from_raw(1).unwrap();
        rustix::process::test_kill_process(first).unwrap();
    }

    #[tokio::test]
    async fn want_of_descriptors_hides_no_process() {
        if !again::is_again() {
            return again::succeeds("leftovers::tests::want_of_descriptors_hides_no_process");
        }
        let place = tempfile::tempdir().unwrap();
        let mut agents = ["one", "two"].map(|pod| agent_of(&place.path().join(pod)));
        let found = |left| {
            let taken = again::take_descriptors_but(left);
            let found = started_below(place.path(), &BTreeSet::new());
            drop(taken);
            found.map(|found| found.len())
        };
        // One for the list of all processes, one for a process, one for what that was started with.
        let seen = [0, 1, 2, 3, 4].map(found);
        for agent in &mut agents {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
        let [none, list, process, one, both] = seen;
        assert!(none.is_err() && list.is_err() && process.is_err());
        assert_eq!(one.unwrap(), 1, "the other when this one has ended");
        assert_eq!(both.unwrap(), 2);
    }
}
