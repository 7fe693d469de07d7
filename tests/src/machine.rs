//! What a server runs on this machine, and what it left, seen from outside.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::up::signal;

/// A socket's state in `/proc/PID/net/tcp`.
const LISTENS: &str = "0A";

/// One pod of a server, by its processes' numbers on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its sidecar.
    pub sidecar: u32,
    /// Its shim, once it runs.
    pub shim: Option<u32>,
}

/// A child of a server.
struct Child {
    pid: u32,
    user: u32,
    arguments: Vec<String>,
}

impl Child {
    fn is(&self, role: &str) -> bool {
        self.arguments.get(1).is_some_and(|word| word == role)
    }
}

/// The pods of a server: those of its children that are sidecars, each with the shim of the same user.
pub fn pods(server: u32) -> Vec<Pod> {
    let children = children(server);
    let sidecars = children.iter().filter(|child| child.is("sidecar"));
    sidecars
        .filter_map(|sidecar| {
            let path = sidecar
                .arguments
                .iter()
                .find_map(|word| word.split_once("/p/"))?
                .1;
            let shim = children
                .iter()
                .find(|child| child.is("shim") && child.user == sidecar.user);
            Some(Pod {
                name: path.split('/').next()?.to_owned(),
                sidecar: sidecar.pid,
                shim: shim.map(|shim| shim.pid),
            })
        })
        .collect()
}

/// A process and its children.
pub fn family(pid: u32) -> Vec<u32> {
    let children = children(pid).into_iter().map(|child| child.pid);
    std::iter::once(pid).chain(children).collect()
}

/// The process in which a sidecar restores or backs up now.
pub fn snapshot_worker(sidecar: u32) -> Option<u32> {
    let children = children(sidecar);
    let worker = children.iter().find(|child| child.is("snapshot-worker"));
    worker.map(|worker| worker.pid)
}

/// The processes that run with exactly these words.
pub fn running(words: &[&str]) -> Vec<u32> {
    processes()
        .filter(|pid| {
            let arguments = arguments(*pid);
            // Each word ends with a zero byte, the last too.
            arguments.len() == words.len() + 1 && arguments.iter().zip(words).all(|(a, b)| a == b)
        })
        .collect()
}

/// The processes in whose words this text is.
pub fn mentioning(text: &str) -> Vec<u32> {
    let mentions = |pid: &u32| arguments(*pid).iter().any(|word| word.contains(text));
    processes().filter(mentions).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn children(server: u32) -> Vec<Child> {
    processes()
        .filter_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field = |name: &str| -> Option<u32> {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse().ok()
            };
            let ours = field("PPid:")? == server;
            ours.then(|| {
                Some(Child {
                    pid,
                    user: field("Uid:")?,
                    arguments: arguments(pid),
                })
            })?
        })
        .collect()
}

fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .split('\0')
        .map(str::to_owned)
        .collect()
}

/// The TCP ports on which a process listens, in its own network: its sockets among those of `/proc/PID/net/tcp` and `tcp6`
/// (proc_pid_net(5)).
///
/// # Errors
/// When they cannot be read.
pub fn listening(pid: u32) -> anyhow::Result<BTreeSet<u16>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    // A descriptor may be closed meanwhile.
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: BTreeSet<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        ports.extend(text.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let port = u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()?;
            (*state == LISTENS && sockets.contains(*inode)).then_some(port)
        }));
    }
    Ok(ports)
}

/// Kills a process; whether it was there.
pub fn kill(pid: u32) -> bool {
    lives(pid) && signal(pid, Signal::KILL).is_ok()
}

/// Whether a process lives (one that only waits to be reaped does not).
pub fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The folder in which a server on this data folder has its sockets and pods: the name that `carrel up` gives it.
pub fn run_dir(data: &Path) -> PathBuf {
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let user =
        fs::metadata(data).map_or_else(|_| rustix::process::geteuid().as_raw(), |data| data.uid());
    Path::new("/var/tmp").join(format!("carrel-{user}-{}", hex::encode(&digest[..5])))
}

/// The control groups of pods, in every hierarchy.
pub fn control_groups(pods: &[Pod]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let names: BTreeSet<_> = pods.iter().map(|pod| OsStr::new(&pod.name)).collect();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if names.contains(entry.file_name().as_os_str()) {
                found.push(entry.path());
            } else {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// What is left of pods that a server on this data folder had: processes, control groups, folders and mounts, a line each.
pub fn left_of(data: &Path, pods: &[Pod]) -> Vec<String> {
    let run_dir = run_dir(data);
    let mut left = Vec::new();
    for pod in pods {
        let processes = std::iter::once(pod.sidecar).chain(pod.shim);
        left.extend(
            processes
                .filter(|pid| lives(*pid))
                .map(|pid| format!("process {pid}")),
        );
    }
    left.extend(
        control_groups(pods)
            .iter()
            .map(|path| format!("group {}", path.display())),
    );
    let entries = ["p", "c"].map(|folder| fs::read_dir(run_dir.join(folder)));
    let entries = entries.into_iter().flatten().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("w-"));
    left.extend(folders.map(|entry| format!("folder {}", entry.path().display())));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = run_dir.display().to_string();
    let mounts = mounts.lines().filter(|line| line.contains(&ours));
    left.extend(mounts.map(|line| format!("mount {line}")));
    left
}

/// Removes that folder, when its server was killed and will not come back.
pub fn remove_run_dir(data: &Path) {
    // Nobody looks for it again: its name is that of a folder that goes too.
    let _ = fs::remove_dir_all(run_dir(data));
}
