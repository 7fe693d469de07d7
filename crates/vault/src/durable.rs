//! Names in folders that outlive a power cut: a file's own sync says nothing of the folder that names it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Syncs the folder that names `path`, which is there. A folder that we may write but not read cannot be opened, and so not be
/// synced by itself: then all of its file system is.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(()),
    };
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(rustix::fs::syncfs(File::open(path)?)?)
        }
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it that are absent, all with this mode; all of them are there after a power cut.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_folder(above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_name(path),
    }
}

/// Makes a file of mode 0600, whole or not at all: whatever ends this early, or fills the disk, leaves no half of it.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is one, which stays as it is.
pub fn make_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a renamed file, a linked one replaces none.
        fs::hard_link(&beside, path)
    };
    let written = write();
    // Where it was not made there is none to remove.
    let _: io::Result<()> = fs::remove_file(&beside);
    written?;
    sync_name(path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use rustix::process::{Gid, Uid, geteuid};

    use super::*;

    /// An ordinary user that no system has: whatever a mode says, root may.
    const ORDINARY_USER: u32 = 12_345;

    #[test]
    fn a_folder_is_made_in_one_that_may_be_written_but_not_read() {
        let place = tempfile::tempdir().unwrap();
        let above = place.path().join("above");
        std::fs::create_dir(&above).unwrap();
        std::fs::write(above.join("file"), "kept").unwrap();
        if geteuid().is_root() {
            for path in [place.path().to_owned(), above.clone(), above.join("file")] {
                chown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).unwrap();
            }
        }
        std::fs::set_permissions(&above, Permissions::from_mode(0o311)).unwrap();
        // A thread of its own, whose rights alone are given up.
        let made = std::thread::spawn(move || {
            if geteuid().is_root() {
                let (user, group) = (Uid::from_raw(ORDINARY_USER), Gid::from_raw(ORDINARY_USER));
                rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            }
            assert!(File::open(&above).is_err());
            make_folder(&above.join("data/objects"), 0o700).unwrap();
            assert!(above.join("data/objects").is_dir());
            sync_name(&above.join("file")).unwrap();
            std::fs::set_permissions(&above, Permissions::from_mode(0o700)).unwrap();
        });
        made.join().unwrap();
    }

    #[test]
    fn a_file_is_made_whole_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        make_file(&path, b"one").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = make_file(&path, b"two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        make_file(&folder.path().join("none/key"), b"one").unwrap_err();
    }
}
