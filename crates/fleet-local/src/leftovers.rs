//! What an earlier run left on this machine: its sidecars' processes and its pods' folders. Containers clear themselves
//! (see [`crate::container::Runtime::sweep`]).

use std::io;
use std::path::Path;

use rustix::process::Pid;

use crate::container::end;
use crate::removal::remove_folder;

/// Ends every process that works in a pod's folder below `pods_dir`, and removes the folders; then makes it anew.
pub(crate) async fn clear(pods_dir: &Path) -> io::Result<()> {
    for pid in of_pods(pods_dir)? {
        end(pid).await?;
    }
    remove_folder(pods_dir.to_owned()).await?;
    let mut builder = tokio::fs::DirBuilder::new();
    builder.mode(0o711).create(pods_dir).await
}

/// Processes whose arguments name a path below the folder of pods. Only sidecars and shims are started so; they die with
/// their parent, so this finds those alone that are dying.
fn of_pods(pods_dir: &Path) -> io::Result<Vec<Pid>> {
    let needle = format!("{}/", pods_dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&arguments);
        let ours = text
            .split('\0')
            .nth(1)
            .is_some_and(|role| role == "sidecar" || role == "shim");
        if ours && text.contains(&needle) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
