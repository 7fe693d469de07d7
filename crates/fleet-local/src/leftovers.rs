//! What is left of pods on this machine: their processes and their folders. Containers clear themselves (see
//! [`crate::container::Runtime::sweep`]).
//!
//! Processes that no container holds together are found by what they were started with. Called when a fleet starts, for
//! what an earlier one left, and when a pod without isolation has ended, whose agent may have outlived its shim.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

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
        let below = folder.to_owned();
        let found = tokio::task::spawn_blocking(move || started_below(&below));
        let mut found = found.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        found.retain(|(pid, _)| !stuck.contains(pid));
        if found.is_empty() {
            return Ok(());
        }
        let ends = found
            .into_iter()
            .map(|(pid, process)| async move { (pid, end_process(process).await) });
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

/// Sidecars and shims, whose arguments name a path below the folder, and agents, whose environment does: whatever an agent
/// starts inherits it. Each is opened before it is looked at: its number may be another's by the time it is killed.
fn started_below(folder: &Path) -> io::Result<Vec<(i32, Stranger)>> {
    let path = format!("{}/", folder.display());
    let workspace = format!("CARREL_WORKSPACE={path}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(process) = Pid::from_raw(pid).and_then(|pid| open_process(pid).ok()) else {
            continue;
        };
        let words = |file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let arguments = words("cmdline");
        let role = arguments.split('\0').nth(1);
        let is_ours =
            (role == Some("sidecar") || role == Some("shim")) && arguments.contains(&path);
        let is_agents = || {
            words("environ")
                .split('\0')
                .any(|word| word.starts_with(&workspace))
        };
        if is_ours || is_agents() {
            found.push((pid, process));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// The folder of pods, for this program when it runs beside a process that cannot be killed.
    const PODS: &str = "CARREL_TEST_PODS";
    const WORKSPACE: &str = "CARREL_WORKSPACE";

    /// No process ends the first one of its own namespace: here that is one of an ended pod.
    #[test]
    fn a_process_that_does_not_end_holds_up_neither_a_start_nor_the_end_of_others() {
        let name = "a_process_that_does_not_end_holds_up_neither_a_start_nor_the_end_of_others";
        if let Some(pods) = std::env::var_os(PODS) {
            return clear_beside_another(&PathBuf::from(pods));
        }
        let place = tempfile::tempdir().unwrap();
        let pods = place.path().join("p");
        let unshare = |script: &str| {
            let mut command = Command::new("unshare");
            command
                .args(["--user", "--map-root-user", "--pid", "--fork"])
                .args(["--mount-proc", "sh", "-c", script])
                .arg(std::env::current_exe().unwrap());
            command
        };
        if !unshare("true").status().is_ok_and(|ended| ended.success()) {
            println!("SKIP {name}: no namespace can be entered here");
            return;
        }
        let again = format!("env -u {WORKSPACE} $0 --exact leftovers::tests::{name}; exit $?");
        let ran = unshare(&again)
            .env(WORKSPACE, pods.join("one/workspace"))
            .env(PODS, &pods)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn clear_beside_another(pods: &Path) {
        std::fs::create_dir_all(pods.join("one/workspace")).unwrap();
        let mut other = Command::new("sleep")
            .arg("1000")
            .env(WORKSPACE, pods.join("two/workspace"))
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(clear(pods)).unwrap();
        assert!(!other.wait().unwrap().success(), "it was killed");
        assert_eq!(std::fs::read_dir(pods).unwrap().count(), 0);
        let first = Pid::from_raw(1).unwrap();
        rustix::process::test_kill_process(first).unwrap();
    }
}
