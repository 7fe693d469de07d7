//! What is left of pods on this machine: their processes and their folders. Containers clear themselves (see
//! [`crate::container::Runtime::sweep`]).
//!
//! Processes that no container holds together are found by what they were started with. Called when a fleet starts, for
//! what an earlier one left, and when a pod without isolation has ended, whose agent may have outlived its shim.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, pidfd_send_signal};

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

/// Ends every process that was started for what is below a folder: comes back when none is left.
pub(crate) async fn end_processes(folder: &Path) -> io::Result<()> {
    for _ in 0..ROUNDS {
        let found = started_below(folder)?;
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            // Gone meanwhile is as good as killed.
            let _ = pidfd_send_signal(process.get_ref(), Signal::KILL);
        }
        for process in found {
            end_process(process).await?;
        }
    }
    Err(io::Error::other("its processes start others without end"))
}

/// Sidecars and shims, whose arguments name a path below the folder, and agents, whose environment does: whatever an agent
/// starts inherits it. Each is opened before it is looked at: its number may be another's by the time it is killed.
fn started_below(folder: &Path) -> io::Result<Vec<Stranger>> {
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
            found.push(process);
        }
    }
    Ok(found)
}
