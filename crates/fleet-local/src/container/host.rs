//! Looks at this machine and this process: what the host offers a root, and what rights we have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::error::{Doing, Error};
use super::layout::Host;

impl Host {
    /// Reads what [`super::layout::layout`] needs to know of this machine.
    pub(super) fn look() -> Result<Self, Error> {
        let mut host = Self {
            executable: fs::read_link("/proc/self/exe").doing(|| "finding Carrel itself".into())?,
            libraries: loaded_libraries(
                &fs::read_to_string("/proc/self/maps").doing(|| "reading own memory map".into())?,
            ),
            ..Self::default()
        };
        for path in Self::ASKED.map(PathBuf::from) {
            let Ok(kind) = fs::symlink_metadata(&path).map(|found| found.file_type()) else {
                continue;
            };
            if kind.is_symlink() && path.parent() == Some(Path::new("/")) {
                host.links.insert(
                    path.clone(),
                    fs::read_link(&path).doing(|| format!("reading link {}", path.display()))?,
                );
            } else if path.is_dir() {
                host.folders.push(path);
            } else if path.is_file() {
                host.files.push(path);
            }
        }
        Ok(host)
    }
}

/// Shared objects in a memory map, the loader among them.
fn loaded_libraries(maps: &str) -> Vec<PathBuf> {
    let paths: BTreeSet<_> = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| PathBuf::from(format!("/{path}")))
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            path.extension().is_some_and(|kind| kind == "so") || name.contains(".so.")
        })
        .collect();
    paths.into_iter().collect()
}

/// Whether this process may make namespaces and give processes any user: root with its powers. Without
/// them, everything happens inside a user namespace of our own user alone.
pub(super) fn privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::KILL;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Whether the kernel counts processes for each user namespace (since 5.14), so that a plain resource
/// limit bounds one container's processes and not all of that user's.
pub(super) fn process_limit_is_per_namespace() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_objects_are_taken_from_a_memory_map_and_each_once() {
        let maps = "55d0-55d1 r--p 0 fe:00 1 /opt/carrel\n\
                    7f01-7f02 r--p 0 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 r-xp 0 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f04-7f05 r--p 0 fe:00 3 /usr/lib/ld-linux.so.2\n\
                    7f06-7f07 rw-p 0 0 0 [stack]\n";
        let expected = [
            "/usr/lib/ld-linux.so.2",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
        ];
        assert_eq!(loaded_libraries(maps), expected.map(PathBuf::from));
    }
}
