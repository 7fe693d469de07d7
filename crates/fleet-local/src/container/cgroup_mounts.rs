//! Where the control group hierarchies are mounted and where in them this process is: a pure reading of
//! `/proc/self/mountinfo` and `/proc/self/cgroup` (`cgroups(7)`, `proc_pid_mountinfo(5)`).

use std::fs;
use std::path::{Path, PathBuf};

use super::spec::Limit;

/// One hierarchy with the groups below which we may try to make ours, best first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// A version 1 controller that we use.
    V1 {
        limit: Limit,
        candidates: Vec<PathBuf>,
    },
    /// The version 2 tree.
    V2 { candidates: Vec<PathBuf> },
}

/// The hierarchies of this machine, as this process sees them.
pub(super) fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    parse(&mounts, &groups)
}

fn parse(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(mount)
        .flat_map(|mount| below(&mount, groups))
        .collect()
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    version_2: bool,
    options: &'a str,
}

/// `36 35 98:0 /root /point options… - type source super-options`
fn mount(line: &str) -> Option<Mount<'_>> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let mut kind = kind.split(' ');
    let version_2 = match kind.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    Some(Mount {
        root: place.next()?,
        point: place.next()?,
        version_2,
        options: kind.nth(1)?,
    })
}

fn below(mount: &Mount<'_>, groups: &str) -> Vec<Hierarchy> {
    let point = Path::new(mount.point);
    if mount.version_2 {
        let own = own_group(groups, "").map(|path| inside(mount, path));
        let parent = own
            .as_deref()
            .filter(|own| *own != point)
            .and_then(Path::parent);
        let mut candidates = Vec::new();
        candidates.extend(own.clone());
        candidates.extend(parent.map(Path::to_path_buf));
        candidates.push(point.to_path_buf());
        candidates.dedup();
        return vec![Hierarchy::V2 { candidates }];
    }
    Limit::ALL
        .into_iter()
        .filter(|limit| {
            mount
                .options
                .split(',')
                .any(|option| option == limit.name())
        })
        .map(|limit| {
            let mut candidates: Vec<_> = own_group(groups, limit.name())
                .map(|path| inside(mount, path))
                .into_iter()
                .collect();
            candidates.push(point.to_path_buf());
            candidates.dedup();
            Hierarchy::V1 { limit, candidates }
        })
        .collect()
}

/// The path of our group in the hierarchy of a controller (`""`: version 2).
fn own_group<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

/// A group's folder under a mount that may show only part of the hierarchy.
fn inside(mount: &Mount<'_>, group: &str) -> PathBuf {
    let shown = Path::new(group)
        .strip_prefix(mount.root)
        .unwrap_or(Path::new(""));
    if shown.as_os_str().is_empty() {
        PathBuf::from(mount.point)
    } else {
        Path::new(mount.point).join(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_beside_version_2_gives_our_own_group_first() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 24 0:29 / /home rw - ext4 /dev/sda1 rw\n";
        let groups = "4:memory:/system/one\n1:cpu,cpuacct:/\n0::/other/leaf\n";
        let found = parse(mounts, groups);
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            found,
            vec![
                Hierarchy::V1 {
                    limit: Limit::Cpu,
                    candidates: paths(&["/sys/fs/cgroup/cpu,cpuacct"])
                },
                Hierarchy::V1 {
                    limit: Limit::Memory,
                    candidates: paths(&[
                        "/sys/fs/cgroup/memory/system/one",
                        "/sys/fs/cgroup/memory"
                    ])
                },
                Hierarchy::V2 {
                    candidates: paths(&[
                        "/sys/fs/cgroup/unified/other/leaf",
                        "/sys/fs/cgroup/unified/other",
                        "/sys/fs/cgroup/unified"
                    ])
                },
            ]
        );
    }

    #[test]
    fn a_mount_of_part_of_the_hierarchy_shows_our_group_relative_to_that_part() {
        let mounts = "31 24 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = parse(mounts, "4:memory:/docker/abc/inner\n");
        let Some(Hierarchy::V1 { candidates, .. }) = found.first() else {
            panic!("{found:?}")
        };
        assert_eq!(candidates[0], Path::new("/sys/fs/cgroup/memory/inner"));
    }
}
