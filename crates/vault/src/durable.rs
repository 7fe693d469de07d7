//! Names in folders that outlive a power cut: a file's own sync says nothing of the folder that names it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::rand;

/// How the name of a file that is being made goes on after its own: this many random bytes in hexadecimal digits, then this.
const SIDE_NUMBER_BYTES: usize = 16;
const SIDE_ENDING: &str = ".new";

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
/// [`io::ErrorKind::AlreadyExists`] when there is one, which stays as it is, also when it came at the same time.
pub fn make_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut number = [0; SIDE_NUMBER_BYTES];
    rand::fill(&mut number).map_err(|_| io::Error::other("the system gives no randomness"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}{SIDE_ENDING}", hex::encode(number)));
    let write = || -> io::Result<()> {
        // Nobody else's: processes in containers of their own all have the same number.
        let mut file = File::options()
            .write(true)
            .create_new(true)
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
    if !path.exists() {
        return written;
    }
    sync_name(path)?;
    // Whoever made it meanwhile may have taken ours for left over.
    written.map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// Removes what a [`make_file`] that was cut off left beside a file that is there: a second copy of a key, it may be. One that
/// is still being made then makes nothing any more, whether its own is removed or not.
pub fn clear_beside(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let is_beside = |found: &OsStr| {
        let rest = found
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes());
        let number = rest
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(SIDE_ENDING.as_bytes()));
        number.is_some_and(|number| {
            number.len() == 2 * SIDE_NUMBER_BYTES && number.iter().all(u8::is_ascii_hexdigit)
        })
    };
    // Where we may only read, nothing of ours was left.
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        if is_beside(&entry.file_name()) {
            let _: io::Result<()> = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::sync::Barrier;
    use std::thread;

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

    /// As roles in containers are, whose processes all have the number 1.
    #[test]
    fn of_many_who_make_a_file_at_once_one_does_and_what_it_wrote_stays() {
        for round in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            let begin = Barrier::new(8);
            let make = |maker: usize| {
                let content = maker.to_string().repeat(1000);
                begin.wait();
                make_file(&path, content.as_bytes()).map(|()| content)
            };
            let made: Vec<_> = thread::scope(|scope| {
                let makers: Vec<_> = (0..8)
                    .map(|maker| scope.spawn(move || make(maker)))
                    .collect();
                makers
                    .into_iter()
                    .map(|maker| maker.join().unwrap())
                    .collect()
            });
            let (done, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
            assert_eq!(done.len(), 1, "round {round}: {refused:?}");
            let others = refused.into_iter().map(|made| made.unwrap_err().kind());
            for other in others {
                assert_eq!(other, io::ErrorKind::AlreadyExists, "round {round}");
            }
            let kept = fs::read_to_string(&path).unwrap();
            assert_eq!(done.into_iter().next().unwrap().unwrap(), kept);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_was_left_beside_a_file_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let left = format!("key.{}.new", "0a".repeat(16));
        let stays = ["key", "key.2.new", "key.new", "other.new"].map(str::to_owned);
        for name in stays.iter().chain([&left]) {
            fs::write(folder.path().join(name), "k").unwrap();
        }
        clear_beside(&path);
        let entries = fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, stays);
    }
}
