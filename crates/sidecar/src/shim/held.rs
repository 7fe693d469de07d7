//! What the agent's processes hold of files that have no name any more: such a file takes its room on the disk until the
//! last descriptor or mapping of it is gone, and no walk through the workspace finds it.
//!
//! Called for [`super::protocol::Order::Held`]. The shim looks because it alone may: it is of the agent's user and in the
//! agent's user namespace, with and without root. Looks into `/proc` and changes nothing. A process hides what it holds if
//! it cannot be seen into, or if a descriptor is on its way to it through a socket. Nor is seen what it maps of a nameless
//! file that nobody has a descriptor of, whose length the kernel tells no ordinary user, nor what there was no time for.
//! An honest process may be so for a moment: the look says whether it was in the one before, too.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::processes::after_name;
use super::protocol::{Look, Unseen, Why};

/// How long a look takes at most: the shim has one thread, which has to obey, too.
pub(super) const WITHIN: Duration = Duration::from_secs(1);
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

/// The most characters of the name of a program or a file that are told.
const NAME: usize = 200;

/// Looks. `folder` is the workspace, as the processes see it. `before` are those of which the last look did not see
/// everything; they come first in this one, so that each gets its turn where there are more than a look has time for.
pub(super) fn measure(
    list: impl Fn() -> io::Result<HashSet<Pid>>,
    folder: &Path,
    within: Duration,
    before: &mut HashSet<Pid>,
) -> io::Result<Look> {
    let mut held = Held {
        folder: format!("{}/", folder.display()),
        device: fs::metadata(folder)?.dev(),
        files: HashMap::new(),
        mapped: HashMap::new(),
        looked_at: 0,
        until: Instant::now() + within,
    };
    let (mut all, mut left) = (HashSet::new(), Vec::new());
    for time in 0..TRIES {
        if time > 0 && !left.is_empty() {
            thread::sleep(PAUSE);
        }
        if time < ROUNDS {
            let new = list()?.into_iter().filter(|pid| all.insert(*pid));
            left.extend(new.map(|pid| (pid, Why::NoTime)));
            left.sort_by_key(|(pid, _)| !before.contains(pid));
        }
        left.retain_mut(|(pid, why)| {
            let seen = held.see(*pid);
            *why = seen.err().unwrap_or(*why).max(*why);
            seen.is_err()
        });
        // Who maps what nobody has open is not known before all have been looked into.
        if left.is_empty() && (time >= ROUNDS || list()?.is_subset(&all)) || held.is_spent() {
            break;
        }
    }
    let maps = if left.is_empty() {
        Why::Maps
    } else {
        Why::NoTime
    };
    left.extend(held.mapping_alone().map(|(_, pid)| (pid, maps)));
    let gravest = left
        .iter()
        .max_by_key(|(pid, why)| (before.contains(pid), *why));
    let unseen = gravest.map(|(pid, why)| Unseen {
        program: program(*pid),
        why: *why,
        file: (*why == Why::Maps).then(|| held.file(*pid)).flatten(),
        again: before.contains(pid),
    });
    *before = left.into_iter().map(|(pid, _)| pid).collect();
    Ok(Look {
        bytes: held.bytes(),
        unseen,
    })
}

struct Held {
    folder: String,
    device: u64,
    /// Bytes on the disk of those with a descriptor, by device and inode.
    files: HashMap<(u64, u64), u64>,
    /// Who maps one, by inode; of many the eldest, so that it is the same in each look.
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

    /// Inodes of which nobody has a descriptor, and who maps them.
    fn mapping_alone(&self) -> impl Iterator<Item = (u64, Pid)> {
        let open: HashSet<u64> = self.files.keys().map(|(_, inode)| *inode).collect();
        let all = self.mapped.iter().map(|(inode, pid)| (*inode, *pid));
        all.filter(move |(inode, _)| !open.contains(inode))
    }

    /// A file that a process maps and nobody has open, as it was called in the workspace. Looked for again when it is to
    /// be told: to keep all names would take memory that is the agent's.
    fn file(&self, pid: Pid) -> Option<String> {
        let inode = self.mapping_alone().find(|(_, by)| *by == pid)?.0;
        let maps = BufReader::new(File::open(entry(pid, "maps")).ok()?);
        let mut lines = maps.split(b'\n').map_while(Result::ok);
        let line = lines.find_map(|line| {
            let line = String::from_utf8_lossy(line.strip_suffix(NAMELESS)?).into_owned();
            (mapping(&line, &self.folder) == Some(inode)).then_some(line)
        })?;
        let path = &line[line.find('/')?..];
        path.strip_prefix(&self.folder).map(printable)
    }

    /// Notes what a process holds; why that is not all of it. One that has ended holds nothing.
    fn see(&mut self, pid: Pid) -> Result<(), Why> {
        let threads = entry(pid, "task");
        let Ok(before) = names(&threads) else {
            return Ok(());
        };
        // All threads have the same descriptors and mappings, for which the filter of system calls sees; the first may
        // have ended before the others.
        for thread in &before {
            if self.is_spent() {
                return Err(Why::NoTime);
            }
            match self.look_into(pid, thread) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Why::Hides),
                Err(_) if self.is_spent() => return Err(Why::NoTime),
                Err(_) => {}
            }
        }
        // One that ends has no memory and is nobody's to look into, but may have handed over to a thread just born.
        let ended = !before.iter().any(|thread| has_memory(thread));
        if ended && names(&threads).is_ok_and(|after| after == before) {
            Ok(())
        } else {
            Err(Why::Hides)
        }
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
            let eldest = self.mapped.entry(inode).or_insert(pid);
            if pid.as_raw_nonzero() < eldest.as_raw_nonzero() {
                *eldest = pid;
            }
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

/// What `/proc` has of a process under a name.
fn entry(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

/// What a process' program is called (`proc_pid_comm(5)`).
fn program(pid: Pid) -> String {
    let name = fs::read(entry(pid, "comm")).unwrap_or_default();
    printable(&String::from_utf8_lossy(&name))
}

/// A name that fits a line.
fn printable(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control());
    plain.take(NAME).collect()
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
mod tests;
