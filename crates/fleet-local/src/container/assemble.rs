//! Puts a container's root together out of its pieces and moves the process into it.
//!
//! Works on file descriptors with the mount calls of Linux 5.12: a source is opened before anything
//! covers it, a target is resolved below the new root without following any link, and attributes are
//! set before a mount becomes visible. Runs in the container's first process, in its own mount namespace:
//! nothing here is seen by the host, and all of it goes when that process goes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::error::{Doing, Error};
use super::layout::{Bind, Piece};
use super::spec::RootKind;
use super::syscalls::set_mount_attributes;

const PLAIN: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const PLAIN_READ_ONLY: u64 = PLAIN | libc::MOUNT_ATTR_RDONLY;

/// Makes the pieces this process's root, attached at the folder `holder` meanwhile.
pub(super) fn enter_root(root: &RootKind, pieces: &[Piece], holder: &Path) -> Result<(), Error> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .doing(|| "separating the mounts from the host's".into())?;
    // Clones of the sources, taken while every path of the host can still be reached.
    let mut sources = Vec::new();
    for piece in pieces {
        if let Piece::Bind(bind) = piece {
            sources.push(source(bind).doing(|| format!("opening {}", bind.from.display()))?);
        }
    }
    let new_root = match root {
        RootKind::HostUsr => memory(256 << 10, 0o755).doing(|| "making the root".into())?,
        RootKind::Image { rootfs } => {
            clone(CWD, rootfs, false).doing(|| format!("opening {}", rootfs.display()))?
        }
    };
    if matches!(root, RootKind::Image { .. }) {
        set_mount_attributes(new_root.as_fd(), PLAIN_READ_ONLY, true)
            .doing(|| "protecting the image".into())?;
    }
    rustix::mount::move_mount(
        new_root.as_fd(),
        c"",
        CWD,
        holder,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .doing(|| format!("mounting the root at {}", holder.display()))?;
    let mut sources = sources.into_iter();
    for piece in pieces {
        place(new_root.as_fd(), piece, &mut sources)?;
    }
    if matches!(root, RootKind::HostUsr) {
        set_mount_attributes(new_root.as_fd(), PLAIN_READ_ONLY, false)
            .doing(|| "protecting the root".into())?;
    }
    leave_old_root(new_root.as_fd())
}

/// `pivot_root(2)`: with both names the same, the old root ends up on top of the new and is detached.
fn leave_old_root(new_root: BorrowedFd<'_>) -> Result<(), Error> {
    let pivot = || {
        rustix::process::fchdir(new_root)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    pivot().doing(|| "changing the root".into())
}

fn place(
    root: BorrowedFd<'_>,
    piece: &Piece,
    sources: &mut impl Iterator<Item = OwnedFd>,
) -> Result<(), Error> {
    let doing = || format!("placing {piece:?}");
    match piece {
        Piece::Folder(at) => match rustix::fs::mkdirat(root, at, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
        .doing(doing),
        Piece::Link { at, to } => rustix::fs::symlinkat(to, root, at).doing(doing),
        Piece::File { at, text } => write_file(root, at, text).doing(doing),
        Piece::Bind(bind) => match sources.next() {
            Some(source) => attach(source.as_fd(), root, &bind.at).doing(doing),
            None => Err(Errno::BADF).doing(doing),
        },
        Piece::Proc => new("proc", &[], PLAIN | libc::MOUNT_ATTR_NOEXEC)
            .and_then(|mount| attach(mount.as_fd(), root, Path::new("proc")))
            .doing(doing),
        Piece::Terminals => {
            let options = [("ptmxmode", "0666"), ("mode", "0620")];
            new(
                "devpts",
                &options,
                libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
            )
            .and_then(|mount| attach(mount.as_fd(), root, Path::new("dev/pts")))
            .doing(doing)
        }
        Piece::Memory { at, bytes, mode } => memory(*bytes, *mode)
            .and_then(|mount| attach(mount.as_fd(), root, at))
            .doing(doing),
        Piece::Mask(at) => mask(root, at).doing(doing),
        Piece::ReadOnly(at) => protect(root, at).doing(doing),
        Piece::Seal(at) => target(root, at)
            .map_err(std::io::Error::from)
            .and_then(|top| set_mount_attributes(top.as_fd(), PLAIN_READ_ONLY, false))
            .doing(doing),
    }
}

fn source(bind: &Bind) -> std::io::Result<OwnedFd> {
    let tree = clone(CWD, &bind.from, !bind.follow)?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    if !bind.device {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    if !bind.writable {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    set_mount_attributes(tree.as_fd(), attributes, true)?;
    Ok(tree)
}

fn clone(dir: BorrowedFd<'_>, path: &Path, no_follow: bool) -> std::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    if no_follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

fn memory(bytes: u64, mode: u32) -> std::io::Result<OwnedFd> {
    // Inodes cost kernel memory of their own: one for each 4 KiB is more than any honest use.
    let inodes = (bytes >> 12).max(64).to_string();
    let options = [
        ("size", bytes.to_string()),
        ("nr_inodes", inodes),
        ("mode", format!("{mode:o}")),
    ];
    let options: Vec<_> = options
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    new("tmpfs", &options, PLAIN)
}

fn new(kind: &str, options: &[(&str, &str)], attributes: u64) -> std::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", "carrel")?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    set_mount_attributes(mount.as_fd(), attributes, false)?;
    Ok(mount)
}

/// Opens a path below the root; a link on the way is an error, so no image can lead us out.
fn target(root: BorrowedFd<'_>, at: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        root,
        at,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
}

fn attach(mount: BorrowedFd<'_>, root: BorrowedFd<'_>, at: &Path) -> std::io::Result<()> {
    let target = target(root, at)?;
    rustix::mount::move_mount(
        mount,
        c"",
        target.as_fd(),
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?;
    Ok(())
}

fn write_file(root: BorrowedFd<'_>, at: &Path, text: &str) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, at, flags, Mode::from_raw_mode(0o644))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
}

/// Covers a file with the null device, a folder with an empty one; what is not there needs no cover.
fn mask(root: BorrowedFd<'_>, at: &Path) -> std::io::Result<()> {
    let covered = match target(root, at) {
        Ok(covered) => covered,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&covered)?.st_mode);
    let cover = if kind.is_dir() {
        let cover = memory(4 << 10, 0o555)?;
        set_mount_attributes(cover.as_fd(), libc::MOUNT_ATTR_RDONLY, false)?;
        cover
    } else {
        let null = target(root, Path::new("dev/null"))?;
        clone(null.as_fd(), Path::new(""), false)?
    };
    attach(cover.as_fd(), root, at)
}

fn protect(root: BorrowedFd<'_>, at: &Path) -> std::io::Result<()> {
    let plain = match target(root, at) {
        Ok(plain) => plain,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let copy = clone(plain.as_fd(), Path::new(""), false)?;
    set_mount_attributes(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, true)?;
    attach(copy.as_fd(), root, at)
}
