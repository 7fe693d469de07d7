//! Brings this executable to where another container starts it, of whatever image that is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Executable by everybody.
const MODE: u32 = 0o755;

/// Copies the running executable there. Nobody sees a part of it: the name comes last.
pub(super) fn install(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let copied = copy(&partial).and_then(|()| fs::rename(&partial, path));
    if copied.is_err() {
        // What was made of it is of no use.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy(to: &Path) -> io::Result<()> {
    let mut from = File::open("/proc/self/exe")?;
    let mut options = OpenOptions::new();
    let mut into = options.write(true).create_new(true).mode(MODE).open(to)?;
    io::copy(&mut from, &mut into)?;
    // The umask may have taken some of it.
    into.set_permissions(Permissions::from_mode(MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_comes_whole_and_over_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bin/carrel");
        install(&path).unwrap();
        fs::write(&path, "of another version").unwrap();
        install(&path).unwrap();
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(fs::read(&path).unwrap() == own, "it differs");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        let around = fs::read_dir(folder.path().join("bin")).unwrap().count();
        assert_eq!(around, 1, "something was left beside it");
    }

    #[test]
    fn where_it_cannot_go_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("carrel");
        fs::create_dir(&path).unwrap();
        install(&path).expect_err("a folder is in its place");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
