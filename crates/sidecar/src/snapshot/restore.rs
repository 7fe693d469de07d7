//! Brings a snapshot back, in the worker: into a fresh folder, verified, then up into the workspace.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};

use carrel_core::SnapshotId;
use rustic_core::repofile::{Node, SnapshotFile};
use rustic_core::{ErrorKind, LocalDestination, LsOptions, RestoreOptions, RusticError};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::RESTORE_FOLDER;
use super::backup::{blame, open};
use super::error::Failure;
use super::request::{Repository, RestoreOutcome};
use super::rest::RestBackend;
use super::source::GO_DIRECTORY;
use super::verify::verify;

/// A tree's entries with their paths from the root, folders first.
pub(super) type Nodes = Vec<(PathBuf, Node)>;

/// Brings a snapshot into an empty workspace.
pub(super) fn restore(
    repository: &Repository,
    workspace: &Path,
    snapshot: &SnapshotId,
) -> Result<RestoreOutcome, Failure> {
    let fresh = fresh_folder(workspace)?;
    let backend = RestBackend::new(repository)?;
    let damaged = |error: Box<RusticError>| blame(&backend, &error.display_log());
    let repo = open(repository, &backend)?.to_indexed().map_err(damaged)?;
    let id = snapshot
        .as_str()
        .parse::<rustic_core::Id>()
        .map_err(damaged)?;
    let file: SnapshotFile = repo.get_file(&id.into()).map_err(damaged)?;

    let root = repo
        .node_from_snapshot_and_path(&file, "")
        .map_err(damaged)?;
    let nodes = repo
        .ls(&root, &LsOptions::default())
        .map_err(damaged)?
        .map(|item| item.map_err(damaged))
        .map(|item| item.and_then(|(path, node)| admit(path, node)))
        .filter_map(Result::transpose)
        .collect::<Result<Nodes, Failure>>()?;
    let stream = || nodes.iter().cloned().map(Ok);

    let target = fresh
        .to_str()
        .ok_or_else(|| Failure::Workspace("its path is not UTF-8".to_owned()))?;
    let destination = LocalDestination::new(target, false, false).map_err(damaged)?;
    let options = RestoreOptions::default().no_ownership(true);
    let plan = repo
        .prepare_restore(&options, stream(), &destination, false)
        .map_err(|error| unrestored(&backend, &error))?;
    // It panics over damaged packs, and over a vault that went away: the backend knows which.
    let restored = catch_unwind(AssertUnwindSafe(|| {
        repo.restore(plan, &options, stream(), &destination)
    }));
    if let Some(failure) = backend.failure() {
        return Err(failure);
    }
    restored
        .map_err(|cause| panicked(&*cause))?
        .map_err(|error| unrestored(&backend, &error))?;

    let outcome = verify(&repo, &fresh, &nodes)?;
    raise(&fresh, workspace).map_err(|error| unwritable(&error))?;
    Ok(outcome)
}

/// An error of files is the workspace's, as nothing else is one here. Its kind is told in words alone.
fn unrestored(backend: &RestBackend, error: &RusticError) -> Failure {
    let said = error.display_log();
    match backend.failure() {
        None if said.contains(&format!("(kind: related to {})", ErrorKind::InputOutput)) => {
            Failure::Workspace(said)
        }
        _ => blame(backend, &said),
    }
}

/// It panics over a file that cannot be written, too: then an error of the system's is in what it says, as [`io::Error`] is
/// written for developers. No stored byte makes one.
fn panicked(cause: &(dyn Any + Send)) -> Failure {
    let said = cause.downcast_ref::<String>().map_or("", String::as_str);
    match said.find("Os {") {
        Some(place) => Failure::Workspace(said[place..].to_owned()),
        None => Failure::Damaged("its data make no sense".to_owned()),
    }
}

pub(super) fn unwritable(error: &io::Error) -> Failure {
    Failure::Workspace(error.to_string())
}

/// Makes [`RESTORE_FOLDER`] anew in a workspace that holds nothing else.
fn fresh_folder(workspace: &Path) -> Result<PathBuf, Failure> {
    let fresh = workspace.join(RESTORE_FOLDER);
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(&error)),
        _ => {}
    }
    if fs::read_dir(workspace)
        .map_err(|error| unwritable(&error))?
        .next()
        .is_some()
    {
        return Err(Failure::NotEmpty);
    }
    fs::create_dir(&fresh).map_err(|error| unwritable(&error))?;
    Ok(fresh)
}

/// What of a stored entry is restored: `None` for special files; no setuid, no owner, no extended attributes; always
/// readable and, for folders, writable by its owner. A path that leaves the root is damage, or worse.
fn admit(path: PathBuf, mut node: Node) -> Result<Option<(PathBuf, Node)>, Failure> {
    let name = node.name().into_owned();
    let mut parts = Path::new(&name).components();
    let is_plain = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    let stays = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !(is_plain && stays && path.file_name() == Some(&name)) {
        return Err(Failure::Damaged("an entry's name is not a name".to_owned()));
    }
    let meta = &mut node.meta;
    let permissions = meta.mode.unwrap_or(0o600) & 0o777;
    meta.links = 0;
    meta.uid = None;
    meta.gid = None;
    meta.user = None;
    meta.group = None;
    meta.extended_attributes.clear();
    if node.is_dir() {
        node.meta.mode = Some(permissions | 0o700 | GO_DIRECTORY);
    } else if node.is_file() {
        node.meta.mode = Some(permissions | 0o400);
    } else if !node.is_symlink() {
        return Ok(None);
    }
    Ok(Some((path, node)))
}

/// Renames everything in the fresh folder up into the workspace, which may be a mount point, and removes the folder.
fn raise(fresh: &Path, workspace: &Path) -> io::Result<()> {
    let names = fs::read_dir(fresh)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<BTreeSet<_>>>()?;
    for name in names {
        renameat_with(
            CWD,
            fresh.join(&name),
            CWD,
            workspace.join(&name),
            RenameFlags::NOREPLACE,
        )?;
    }
    fs::set_permissions(fresh, Permissions::from_mode(0o700))?;
    fs::remove_dir(fresh)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn caught(panics: impl FnOnce()) -> Failure {
        panicked(&*catch_unwind(AssertUnwindSafe(panics)).expect_err("it panics"))
    }

    #[test]
    fn a_full_disk_is_not_taken_for_damage() {
        let full = || {
            let mut full = fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("it is there");
            full.write_all(b"n").expect("writing a file");
        };
        let failure = caught(full);
        assert!(
            matches!(&failure, Failure::Workspace(what) if what.contains("StorageFull")),
            "{failure:?}"
        );
        let damage = caught(|| assert_eq!(b"pack"[0], b"hash"[0], "a pack"));
        assert!(matches!(damage, Failure::Damaged(_)), "{damage:?}");
    }
}
