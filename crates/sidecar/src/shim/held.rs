//! What the agent's processes hold of files that have no name any more: such a file takes its room on the disk until the
//! last descriptor or mapping of it is gone, and no walk through the workspace finds it.
//!
//! Called for [`super::protocol::Order::Held`]. The shim looks because it alone may: it is of the agent's user and in the
//! agent's user namespace, with and without root. Looks into `/proc` and changes nothing. A process hides what it holds if
//! it cannot be seen into, if a descriptor is on its way to it through a socket, or if it maps a nameless file that nobody
//! has a descriptor of, whose length the kernel tells no ordinary user. An honest one may do so for a moment: who is
//! found so in two looks one after the other counts as more than any limit.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::processes::after_name;

/// How long a look takes at most: the shim has one thread, which has to obey, too.
const WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked for processes that were born during the look.
const ROUNDS: usize = 4;
/// The most descriptors and mappings that are looked at; who has more hides what they are.
const MOST: usize = 1 << 18;
/// How often a process that hides something is looked at before that counts. One that ends looks so for a moment.
const TRIES: usize = 50;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(10);
/// How the kernel marks the path of a mapped file that has no name any more (`proc_pid_maps(5)`).
const NAMELESS: &[u8] = b" (deleted)";

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Bytes that nameless files take on the disk while processes hold them; `u64::MAX` if somebody hides what it holds.
    pub(super) bytes: u64,
    /// Whether everything was seen this time.
    pub(super) whole: bool,
}

/// Looks. `folder` is the workspace, as the processes see it. `unseen` are those that the last look could not see into;
/// they come first in this one, so that each gets its turn where there are more than a look has time for.
pub(super) fn measure(
    list: impl Fn() -> io::Result<HashSet<Pid>>,
    folder: &Path,
    unseen: &mut HashSet<Pid>,
) -> io::Result<Look> {
    let mut held = Held {
        folder: format!("{}/", folder.display()),
        device: fs::metadata(folder)?.dev(),
        files: HashMap::new(),
        mapped: HashMap::new(),
        looked_at: 0,
        until: Instant::now() + WITHIN,
    };
    let (mut all, mut left) = (HashSet::new(), Vec::new());
    for time in 0..TRIES {
        if time > 0 && !left.is_empty() {
            thread::sleep(PAUSE);
        }
        if time < ROUNDS {
            left.extend(list()?.into_iter().filter(|pid| all.insert(*pid)));
            left.sort_by_key(|pid| !unseen.contains(pid));
        }
        left.retain(|pid| !held.see(*pid));
        // Who maps what nobody has open is not known before all have been looked into.
        if left.is_empty() && (time >= ROUNDS || list()?.is_subset(&all)) || held.is_spent() {
            break;
        }
    }
    let unseen_now: HashSet<Pid> = left.into_iter().chain(held.mapping_alone()).collect();
    let bytes = if unseen_now.is_disjoint(unseen) {
        held.bytes()
    } else {
        u64::MAX
    };
    let whole = unseen_now.is_empty();
    *unseen = unseen_now;
    Ok(Look { bytes, whole })
}

struct Held {
    folder: String,
    device: u64,
    /// Bytes on the disk of those with a descriptor, by device and inode.
    files: HashMap<(u64, u64), u64>,
    /// Who maps one, by inode.
    mapped: HashMap<u64, Pid>,
    looked_at: usize,
    until: Instant,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.files
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Those that map a file that nobody has a descriptor of.
    fn mapping_alone(&self) -> impl Iterator<Item = Pid> {
        let open: HashSet<u64> = self.files.keys().map(|(_, inode)| *inode).collect();
        let alone = move |(inode, pid): (&u64, &Pid)| (!open.contains(inode)).then_some(*pid);
        self.mapped.iter().filter_map(alone)
    }

    /// Notes what a process holds; whether it let itself be seen into and hid nothing, or has ended.
    fn see(&mut self, pid: Pid) -> bool {
        let threads = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
        let Ok(before) = names(&threads) else {
            return true;
        };
        // All threads have the same descriptors and mappings, for which the filter of system calls sees; the first may
        // have ended before the others.
        for thread in &before {
            if self.is_spent() {
                return false;
            }
            if let Ok(whole) = self.look_into(pid, thread) {
                return whole;
            }
        }
        // One that ends has no memory and is nobody's to look into, but may have handed over to a thread just born.
        let ended = !before.iter().any(|thread| has_memory(thread));
        ended && names(&threads).is_ok_and(|after| after == before)
    }

    /// Whether that was all.
    fn look_into(&mut self, pid: Pid, thread: &Path) -> io::Result<bool> {
        let mut whole = true;
        for entry in fs::read_dir(thread.join("fd"))? {
            let entry = entry?;
            let is_socket = self.note_file(&entry.path())?;
            whole &= !is_socket || !has_mail(&thread.join("fdinfo").join(entry.file_name()));
        }
        self.note_file(&thread.join("exe"))?;
        let maps = BufReader::new(File::open(thread.join("maps"))?);
        for line in maps.split(b'\n') {
            self.note_mapping(pid, &line?)?;
        }
        Ok(whole)
    }

    /// Whether it is a socket.
    fn note_file(&mut self, link: &Path) -> io::Result<bool> {
        self.look()?;
        let file = match fs::metadata(link) {
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        // A file system need not give all its files one device number: what is on any disk counts. What nobody can write
        // was not put there by the agent: a program of the host that was replaced while it runs.
        let counts = || !is_read_only(link) && (file.dev() == self.device || !is_in_memory(link));
        if file.is_file() && file.nlink() == 0 && counts() {
            let bytes = file.blocks().saturating_mul(512);
            self.files.insert((file.dev(), file.ino()), bytes);
        }
        Ok(file.file_type().is_socket())
    }

    fn note_mapping(&mut self, pid: Pid, line: &[u8]) -> io::Result<()> {
        self.look()?;
        if line.ends_with(NAMELESS)
            && let Some(inode) = mapping(&String::from_utf8_lossy(line), &self.folder)
        {
            self.mapped.insert(inode, pid);
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        self.looked_at += 1;
        if self.is_spent() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.looked_at > MOST || Instant::now() > self.until
    }
}

/// Whether descriptors wait in a socket, by what `/proc/…/fdinfo` says of it (Linux 5.6 and newer). Those in sockets that
/// wait there themselves need no search: the socket in which those wait has one.
fn has_mail(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    let waiting = text.lines().find_map(|line| line.strip_prefix("scm_fds:"));
    waiting.is_some_and(|count| count.trim() != "0")
}

/// The paths in a folder, sorted.
fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<_> = entries.collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether a thread has memory (field 23 of its `stat`, which everybody may read). One that ends gives it back before its
/// descriptors, and none is left that would use them.
fn has_memory(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    after_name(&stat).nth(20).is_some_and(|bytes| bytes != "0")
}

/// Whether a file was reached through a mount that nobody writes to.
fn is_read_only(path: &Path) -> bool {
    let flags = rustix::fs::statvfs(path).map(|system| system.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether a file lies in memory, which is limited as memory.
fn is_in_memory(path: &Path) -> bool {
    let memory = [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC];
    rustix::fs::statfs(path).is_ok_and(|system| memory.contains(&system.f_type))
}

/// The inode of a mapped file in a folder.
fn mapping(line: &str, folder: &str) -> Option<u64> {
    let path = line.find('/')?;
    if !line[path..].starts_with(folder) {
        return None;
    }
    // Addresses, rights, offset, device, inode (`proc_pid_maps(5)`).
    line[..path].split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_tells_the_inode_of_a_file_in_the_workspace() {
        let line = "7f01a000-7f01c000 rw-s 00005000 fe:00 262   /workspace/a b (deleted)";
        assert_eq!(mapping(line, "/workspace/"), Some(262));
        for other in [
            "7f01a000-7f01c000 rw-s 00000000 00:01 7  /memfd:x (deleted)",
            "7f01a000-7f01c000 rw-s 00000000 00:01 7  /workspaces/x (deleted)",
            "7f01a000-7f01c000 rw-p 00000000 00:00 0  [heap]",
            "7f01a000-7f01c000 rw-p 00000000 00:00 0",
        ] {
            assert_eq!(mapping(other, "/workspace/"), None, "{other}");
        }
    }

    #[test]
    fn a_file_counts_once_however_often_it_is_held_and_not_while_it_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let own = HashSet::from([rustix::process::getpid()]);
        let held = || {
            let list = || Ok(own.clone());
            measure(list, folder.path(), &mut HashSet::new())
                .unwrap()
                .bytes
        };
        // Other tests of this process hold files, too.
        let bytes = 64 << 20;
        fs::write(&path, vec![7; bytes]).unwrap();
        let first = File::open(&path).unwrap();
        let second = File::open(&path).unwrap();
        assert!(held() < bytes as u64, "it has a name");
        fs::remove_file(&path).unwrap();
        assert!((bytes as u64..2 * bytes as u64).contains(&held()));
        drop((first, second));
        assert!(held() < bytes as u64, "nobody holds it");
    }
}
