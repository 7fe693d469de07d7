//! Whether a workspace is what it was: a hash over names, sizes, inodes and change times, which an agent cannot set back.
//! Much cheaper than a snapshot, and it leaves nothing in the storage.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// What a workspace was like; equal when nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Option<[u8; 32]>);

impl Fingerprint {
    /// Like no workspace: the next one differs.
    pub(crate) const UNKNOWN: Self = Self(None);

    /// Whether both are known and equal.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.is_some() && self == other
    }
}

/// Takes it, without the names that snapshots leave out. A workspace that changes meanwhile is like no other.
pub(crate) fn take(workspace: &Path, exclude: &[String]) -> Fingerprint {
    hash(workspace, exclude).map_or(Fingerprint::UNKNOWN, |hash| Fingerprint(Some(hash)))
}

/// A list and no recursion: an agent can make folders deeper than a stack.
fn hash(workspace: &Path, exclude: &[String]) -> io::Result<[u8; 32]> {
    let (mut hash, root) = (Sha256::new(), workspace.as_os_str().len());
    let mut folders = vec![workspace.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            if exclude
                .iter()
                .any(|left_out| left_out.as_bytes() == name.as_bytes())
            {
                continue;
            }
            let (path, metadata) = (entry.path(), entry.metadata()?);
            hash.update(&path.as_os_str().as_bytes()[root..]);
            hash.update([0]);
            // A folder's own times change with what is left out of it; its content is hashed anyway.
            let times = if metadata.is_dir() {
                [0, 0]
            } else {
                [metadata.ctime(), metadata.ctime_nsec()]
            };
            for number in times {
                hash.update(number.to_le_bytes());
            }
            hash.update(metadata.ino().to_le_bytes());
            hash.update(metadata.mode().to_le_bytes());
            if metadata.is_dir() {
                folders.push(path);
            } else {
                hash.update(metadata.size().to_le_bytes());
            }
        }
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_shows_and_what_is_left_out_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let exclude = ["cache".to_owned()];
        let fingerprint = || take(root, &exclude);
        fs::create_dir_all(root.join("a/cache")).expect("written");
        fs::write(root.join("a/b"), "1").expect("written");
        let mut before = fingerprint();
        assert!(before.is_same(&fingerprint()));
        fs::write(root.join("a/cache/x"), "1").expect("written");
        assert!(before.is_same(&fingerprint()), "what is left out was seen");
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(root.join("a/b"), "2").expect("written"),
            &|| fs::write(root.join("c"), "").expect("written"),
            &|| fs::rename(root.join("c"), root.join("d")).expect("renamed"),
            &|| fs::remove_file(root.join("d")).expect("removed"),
        ];
        for change in changes {
            change();
            let after = fingerprint();
            assert!(!before.is_same(&after), "a change was not seen");
            before = after;
        }
        assert!(!Fingerprint::UNKNOWN.is_same(&Fingerprint::UNKNOWN));
    }
}
