//! Control groups: where this process may make some, and one container's limits in them.
//!
//! Version 1 (one folder for each controller), version 2 (one for all), and both beside each other.
//! Everything lies below one folder of ours, `carrel-<tag>`, as near to our own group as the rights
//! allow; nothing of the host's is changed but that version 2 controllers are passed down to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroup_mounts::{Hierarchy, hierarchies};
use super::spec::{ContainerId, Limit, Limits};

/// Period over which processor time is counted, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// Our folders in the control group hierarchies, by the limit that each can set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroups {
    folders: BTreeMap<Limit, Folder>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Folder {
    version: Version,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    V1,
    V2,
}

/// What a container uses, as far as its control groups tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use, with page cache.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How many of its processes the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Cgroups {
    /// Makes our folder in each hierarchy where this process may; limits that no hierarchy can set are
    /// simply absent. `tag` tells our folder from those of other instances on this machine.
    pub(super) fn claim(tag: &str) -> Self {
        let mut folders = BTreeMap::new();
        for hierarchy in hierarchies() {
            match hierarchy {
                Hierarchy::V1 { limit, candidates } => {
                    let claimed = candidates
                        .iter()
                        .map(|parent| parent.join(folder_name(tag)))
                        .find(|path| make_folder(path).is_ok() && has_controller_v1(path, limit));
                    if let Some(path) = claimed {
                        folders.insert(
                            limit,
                            Folder {
                                version: Version::V1,
                                path,
                            },
                        );
                    }
                }
                Hierarchy::V2 { candidates } => {
                    let Some((path, limits)) = claim_v2(&candidates, tag) else {
                        continue;
                    };
                    for limit in limits {
                        let folder = Folder {
                            version: Version::V2,
                            path: path.clone(),
                        };
                        folders.entry(limit).or_insert(folder);
                    }
                }
            }
        }
        Self { folders }
    }

    /// Puts a process into the container's own groups with their limits. Answers the limits that could
    /// not be set.
    pub(super) fn enter(&self, id: &ContainerId, limits: &Limits, pid: Pid) -> Vec<Limit> {
        let set = |limit: Limit| -> io::Result<()> {
            let folder = self.folders.get(&limit).ok_or(io::ErrorKind::Unsupported)?;
            let path = folder.path.join(id.as_str());
            make_folder(&path)?;
            write_limit(folder.version, &path, limit, limits)?;
            fs::write(path.join("cgroup.procs"), pid.as_raw_nonzero().to_string())
        };
        Limit::ALL
            .into_iter()
            .filter(|limit| set(*limit).is_err())
            .collect()
    }

    /// What the container uses now.
    pub(super) fn usage(&self, id: &ContainerId) -> Usage {
        let read = |limit: Limit, v1: &str, v2: &str, key: Option<&str>| {
            let folder = self.folders.get(&limit)?;
            let file = if folder.version == Version::V1 {
                v1
            } else {
                v2
            };
            let text = fs::read_to_string(folder.path.join(id.as_str()).join(file)).ok()?;
            number(&text, key)
        };
        Usage {
            memory_bytes: read(
                Limit::Memory,
                "memory.usage_in_bytes",
                "memory.current",
                None,
            ),
            pids: read(Limit::Pids, "pids.current", "pids.current", None),
            oom_kills: read(
                Limit::Memory,
                "memory.oom_control",
                "memory.events",
                Some("oom_kill"),
            ),
        }
    }

    /// The file that counts the processes of a container that the kernel killed for want of memory, once it is made.
    pub(super) fn memory_events(&self, id: &ContainerId) -> Option<PathBuf> {
        let folder = self.folders.get(&Limit::Memory)?;
        let file = match folder.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Some(folder.path.join(id.as_str()).join(file))
    }

    /// Containers that have a group here, living or left over.
    pub(super) fn containers(&self) -> Vec<ContainerId> {
        let mut found: Vec<_> = self
            .paths()
            .filter_map(|path| fs::read_dir(path).ok())
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| ContainerId::try_from(entry.file_name().into_string().ok()?).ok())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Sends SIGKILL to every process in the container's groups.
    pub(super) fn kill(&self, id: &ContainerId) {
        for path in self.paths() {
            let text = fs::read_to_string(path.join(id.as_str()).join("cgroup.procs"));
            for pid in text
                .unwrap_or_default()
                .lines()
                .filter_map(|line| line.parse().ok())
            {
                if let Some(pid) = Pid::from_raw(pid) {
                    // Gone meanwhile is as good as killed.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }

    /// Removes the container's groups; an error while a process is still in one of them.
    pub(super) fn remove(&self, id: &ContainerId) -> io::Result<()> {
        self.paths()
            .try_for_each(|path| remove_folder(&path.join(id.as_str())))
    }

    /// Removes our own folders; those that still have a container stay.
    pub(super) fn release(&self) {
        for path in self.paths() {
            let _ = remove_folder(path);
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let mut paths: Vec<_> = self
            .folders
            .values()
            .map(|folder| folder.path.as_path())
            .collect();
        paths.dedup();
        paths.into_iter()
    }
}

fn folder_name(tag: &str) -> String {
    format!("carrel-{tag}")
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A bind or an overlay on the mount point could make a plain folder look like a group.
fn has_controller_v1(path: &Path, limit: Limit) -> bool {
    path.join(match limit {
        Limit::Cpu => "cpu.cfs_quota_us",
        Limit::Memory => "memory.limit_in_bytes",
        Limit::Pids => "cgroup.procs",
    })
    .exists()
}

/// The first candidate that can give all limits, else the one that gives most.
fn claim_v2(candidates: &[PathBuf], tag: &str) -> Option<(PathBuf, Vec<Limit>)> {
    let mut best: Option<(PathBuf, Vec<Limit>)> = None;
    for parent in candidates {
        let path = parent.join(folder_name(tag));
        if make_folder(&path).is_err() {
            continue;
        }
        let limits: Vec<_> = Limit::ALL
            .into_iter()
            .filter(|limit| pass_down(parent, *limit) && pass_down(&path, *limit))
            .collect();
        let better = best
            .as_ref()
            .is_none_or(|(_, found)| limits.len() > found.len());
        let worse = if better {
            best.replace((path, limits)).map(|(path, _)| path)
        } else {
            Some(path)
        };
        if let Some(worse) = worse {
            let _ = remove_folder(&worse);
        }
        if best
            .as_ref()
            .is_some_and(|(_, found)| found.len() == Limit::ALL.len())
        {
            break;
        }
    }
    best.filter(|(path, limits)| {
        if limits.is_empty() {
            let _ = remove_folder(path);
        }
        !limits.is_empty()
    })
}

/// Lets the children of a version 2 group use a controller.
fn pass_down(group: &Path, limit: Limit) -> bool {
    let file = group.join("cgroup.subtree_control");
    let has = |text: String| text.split_whitespace().any(|name| name == limit.name());
    fs::read_to_string(&file).is_ok_and(has) || fs::write(&file, format!("+{limit}")).is_ok()
}

fn write_limit(version: Version, path: &Path, limit: Limit, limits: &Limits) -> io::Result<()> {
    let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_MICROS / 1000;
    match (version, limit) {
        (Version::V1, Limit::Cpu) => {
            fs::write(
                path.join("cpu.cfs_period_us"),
                CPU_PERIOD_MICROS.to_string(),
            )?;
            fs::write(path.join("cpu.cfs_quota_us"), quota.to_string())
        }
        (Version::V2, Limit::Cpu) => {
            fs::write(path.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROS}"))
        }
        (Version::V1, Limit::Memory) => {
            let bytes = limits.memory_bytes.to_string();
            fs::write(path.join("memory.limit_in_bytes"), &bytes)?;
            // Absent where the kernel does not account swap.
            let _ = fs::write(path.join("memory.memsw.limit_in_bytes"), &bytes);
            Ok(())
        }
        (Version::V2, Limit::Memory) => {
            fs::write(path.join("memory.max"), limits.memory_bytes.to_string())?;
            let _ = fs::write(path.join("memory.swap.max"), "0");
            Ok(())
        }
        (_, Limit::Pids) => fs::write(path.join("pids.max"), limits.pids.to_string()),
    }
}

/// The number in a file, or after a key on one of its lines.
fn number(text: &str, key: Option<&str>) -> Option<u64> {
    match key {
        None => text.trim().parse().ok(),
        Some(key) => text.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == key).then(|| value.trim().parse().ok())?
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_out_of_memory_count_is_found_beside_keys_that_begin_alike() {
        let text = "oom_kill_disable 0\nunder_oom 1\noom_kill 7\n";
        assert_eq!(number(text, Some("oom_kill")), Some(7));
        assert_eq!(number(text, Some("absent")), None);
        assert_eq!(number("4096\n", None), Some(4096));
    }

    /// Version 2 in a plain folder: the kernel's files are what is written. `cgroup.procs` of the group
    /// and `cgroup.subtree_control` above it are the same there as in a real tree.
    #[test]
    fn a_version_2_group_gets_its_controllers_passed_down_and_all_its_limits() {
        let tree = tempfile::tempdir().unwrap();
        let closed = tree.path().join("a file where no group can be made");
        fs::write(&closed, "").unwrap();
        let candidates = [closed, tree.path().to_path_buf()];
        let (path, found) = claim_v2(&candidates, "tag").unwrap();
        assert_eq!(
            (path.as_path(), found.as_slice()),
            (&*tree.path().join("carrel-tag"), &Limit::ALL[..])
        );
        for group in [tree.path(), &path] {
            assert!(
                group.join("cgroup.subtree_control").exists(),
                "passed down at {}",
                group.display()
            );
        }
        let folder = |limit| {
            (
                limit,
                Folder {
                    version: Version::V2,
                    path: path.clone(),
                },
            )
        };
        let cgroups = Cgroups {
            folders: found.into_iter().map(folder).collect(),
        };
        let id = ContainerId::try_from("one".to_owned()).unwrap();
        let limits = Limits {
            cpu_millis: 250,
            memory_bytes: 9_000,
            pids: 11,
            tmp_bytes: 12,
        };
        let pid = Pid::from_raw(4_194_303).unwrap();
        assert_eq!(cgroups.enter(&id, &limits, pid), []);
        let read = |file: &str| fs::read_to_string(path.join("one").join(file)).unwrap();
        assert_eq!(read("cpu.max"), "25000 100000");
        assert_eq!(
            (read("memory.max"), read("memory.swap.max")),
            ("9000".into(), "0".into())
        );
        assert_eq!(
            (read("pids.max"), read("cgroup.procs")),
            ("11".into(), "4194303".into())
        );
        fs::write(path.join("one/memory.events"), "oom 5\noom_kill 3\n").unwrap();
        assert_eq!(cgroups.usage(&id).oom_kills, Some(3));
        assert_eq!(cgroups.containers(), [id]);
    }
}
