//! What the agent's processes hold of files that have no name any more: such a file takes its room on the disk until the
//! last descriptor or mapping of it is gone, and no walk through the workspace finds it.
//!
//! Called for [`super::protocol::Order::Held`]. The shim looks because it alone may: it is of the agent's user and in the
//! agent's user namespace, with and without root. Looks into `/proc` and changes nothing. What cannot be seen into counts
//! as more than any limit, like a folder that cannot be read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::processes::after_name;

/// How often it is asked for processes that were born during the look.
const ROUNDS: usize = 4;
/// The most descriptors and mappings that are looked at; who has more hides what they are.
const MOST: usize = 1 << 18;
/// How often a process that cannot be seen into is looked at before that counts. One that ends looks so for a moment.
const LOOKS: usize = 50;
/// Between two of these looks.
const PAUSE: Duration = Duration::from_millis(10);
/// How the kernel marks the path of a mapped file that has no name any more (`proc_pid_maps(5)`).
const NAMELESS: &[u8] = b" (deleted)";

/// Bytes that nameless files take on the disk while processes hold them; `u64::MAX` if that cannot be known. `folder` is
/// the workspace, as the processes see it.
pub(super) fn measure(
    list: impl Fn() -> io::Result<HashSet<Pid>>,
    folder: &Path,
) -> io::Result<u64> {
    let mut held = Held {
        folder: format!("{}/", folder.display()),
        device: fs::metadata(folder)?.dev(),
        files: HashMap::new(),
        mapped: HashMap::new(),
        looked_at: 0,
    };
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS {
        let all = list()?;
        let mut born = all.difference(&seen).peekable();
        if born.peek().is_none() {
            break;
        }
        if !born.all(|pid| held.see(*pid)) {
            return Ok(u64::MAX);
        }
        seen = all;
    }
    Ok(held.bytes())
}

struct Held {
    folder: String,
    device: u64,
    /// Bytes on the disk of those with a descriptor, by device and inode.
    files: HashMap<(u64, u64), u64>,
    /// How long those that are mapped are at least, by inode.
    mapped: HashMap<u64, u64>,
    looked_at: usize,
}

impl Held {
    fn bytes(&self) -> u64 {
        let known: HashSet<u64> = self.files.keys().map(|(_, inode)| *inode).collect();
        let alone = self
            .mapped
            .iter()
            .filter(|(inode, _)| !known.contains(inode));
        self.files
            .values()
            .chain(alone.map(|(_, length)| length))
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Notes what a process holds; whether it let itself be seen into, or has ended.
    fn see(&mut self, pid: Pid) -> bool {
        let threads = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(PAUSE);
            }
            let Ok(before) = names(&threads) else {
                return true;
            };
            // All threads have the same descriptors and mappings, for which the filter of system calls sees; the first
            // may have ended before the others.
            if before.iter().any(|thread| self.look_into(thread).is_ok()) {
                return true;
            }
            // One that ends has no memory and is nobody's to look into, but may have handed over to a thread just born.
            let ended = !before.iter().any(|thread| has_memory(thread));
            if ended && names(&threads).is_ok_and(|after| after == before) {
                return true;
            }
        }
        false
    }

    fn look_into(&mut self, thread: &Path) -> io::Result<()> {
        for entry in fs::read_dir(thread.join("fd"))? {
            self.note_file(&entry?.path())?;
        }
        self.note_file(&thread.join("exe"))?;
        let maps = BufReader::new(File::open(thread.join("maps"))?);
        for line in maps.split(b'\n') {
            self.note_mapping(&line?)?;
        }
        Ok(())
    }

    fn note_file(&mut self, link: &Path) -> io::Result<()> {
        self.look()?;
        let file = match fs::metadata(link) {
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        // A file system need not give all its files one device number: what is on any disk counts. What nobody can write
        // was not put there by the agent: a program of the host that was replaced while it runs.
        let counts = || !is_read_only(link) && (file.dev() == self.device || !is_in_memory(link));
        if file.is_file() && file.nlink() == 0 && counts() {
            let bytes = file.blocks().saturating_mul(512);
            self.files.insert((file.dev(), file.ino()), bytes);
        }
        Ok(())
    }

    fn note_mapping(&mut self, line: &[u8]) -> io::Result<()> {
        self.look()?;
        if line.ends_with(NAMELESS)
            && let Some((inode, length)) = mapping(&String::from_utf8_lossy(line), &self.folder)
        {
            let longest = self.mapped.entry(inode).or_default();
            *longest = length.max(*longest);
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        self.looked_at += 1;
        if self.looked_at > MOST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }
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

/// Inode, and least length of the file, of a mapped file in a folder.
fn mapping(line: &str, folder: &str) -> Option<(u64, u64)> {
    let path = line.find('/')?;
    if !line[path..].starts_with(folder) {
        return None;
    }
    let mut fields = line[..path].split_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let inode = fields.nth(1)?.parse().ok()?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let length = number(to)?.checked_sub(number(from)?)?;
    Some((inode, number(offset)?.saturating_add(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_tells_inode_and_least_length_of_a_file_in_the_workspace() {
        let line = "7f01a000-7f01c000 rw-s 00005000 fe:00 262   /workspace/a b (deleted)";
        assert_eq!(mapping(line, "/workspace/"), Some((262, 0x7000)));
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
        let held = || measure(|| Ok(own.clone()), folder.path()).unwrap();
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
