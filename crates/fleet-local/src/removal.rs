//! Removes a folder in which agents have written: however deep it is and whatever its modes are.
//!
//! The standard library's way descends by recursion and holds a descriptor for each level, so that a tree of many
//! thousand folders ends the whole process. Here each folder's folders are moved up to the top before it is removed: one
//! level, one descriptor, the same number of calls. No link is followed. Nobody may write in the folder any more.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmod, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a folder with everything in it; that it is not there is well.
pub(crate) async fn remove_folder(path: PathBuf) -> io::Result<()> {
    let removed = tokio::task::spawn_blocking(move || remove(&path));
    removed
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn remove(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut moved = 0_u64;
    let mut names = names_in(&top)?;
    while let Some(name) = names.pop() {
        if !is_folder(unlinkat(&top, &name, AtFlags::empty()))? {
            continue;
        }
        let folder = open(&top, &name)?;
        for child in names_in(&folder)? {
            if is_folder(unlinkat(&folder, &child, AtFlags::empty()))? {
                // Only who may write in a folder moves it: its parent's entry is in it.
                open(&folder, &child)?;
                names.push(lift(&folder, &child, &top, &mut moved)?);
            }
        }
        unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
    }
    fs::remove_dir(path)
}

/// Moves a folder to the top under a name that nothing there has.
fn lift(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<CString> {
    loop {
        *moved += 1;
        let free = CString::new(format!(".removed-{moved}"))?;
        match renameat(from, name, top, &free) {
            Ok(()) => return Ok(free),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether what was not unlinked is a folder.
fn is_folder(unlinked: Result<(), Errno>) -> io::Result<bool> {
    match unlinked {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder and takes all rights to it, which its owner may have taken from itself.
fn open(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(at, name, flags | OFlags::PATH, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), Mode::RWXU)?;
    openat(&folder, c".", flags | OFlags::RDONLY, Mode::empty())
}

fn names_in(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let names = Dir::read_from(folder)?.filter_map(|entry| match entry {
        Ok(entry) if [c".", c".."].contains(&entry.file_name()) => None,
        Ok(entry) => Some(Ok(entry.file_name().to_owned())),
        Err(error) => Some(Err(error.into())),
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_folder_is_removed_however_deep_it_is_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let (doomed, kept) = (place.path().join("doomed"), place.path().join("kept"));
        for folder in [
            &doomed,
            &kept,
            &doomed.join("a/b"),
            &doomed.join(".removed-2/x"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(kept.join("file"), "kept").unwrap();
        symlink(&kept, doomed.join("a/link")).unwrap();
        symlink(kept.join("file"), doomed.join("link")).unwrap();
        let mut at = open(CWD, doomed.join("a")).unwrap();
        for _ in 0..9_000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open(&at, c"d").unwrap();
        }
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        remove(&doomed).unwrap();
    }

    #[test]
    fn folders_that_are_closed_even_to_their_owner_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let doomed = place.path().join("doomed");
        fs::create_dir_all(doomed.join("a/b/c")).unwrap();
        for folder in ["a/b", "a"] {
            fs::set_permissions(doomed.join(folder), fs::Permissions::from_mode(0o300)).unwrap();
        }
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
    }
}
