//! The calls that need `unsafe`, each behind a safe function. Nothing else in the workspace may contain
//! unsafe code.
//!
//! All but [`watch`] and [`in_own_session`] are for a process with one thread (the short-lived container maker and the
//! container's first process before it becomes the shim), which is what makes `clone` without a new stack
//! sound here.

#![expect(
    unsafe_code,
    reason = "no safe library offers these calls; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Forks so that the child is our sibling: its parent is our own parent, which can therefore wait for it
/// and whose end the kernel can tell it. `None` is returned in the child.
///
/// The caller must have one thread only; in another case the child would own locks that nobody frees.
pub(super) fn fork_sibling() -> io::Result<Option<Pid>> {
    // SAFETY: with no stack, no thread-local storage and no CLONE_VM the call behaves like fork(2): the
    // child continues on a private copy of this address space. The process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leaves the given namespaces for new ones.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsound only where threads come to disagree about the file table (CLONE_FILES), which no
    // caller passes, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Sets attributes on a mount, and on all below it if `recursive`.
pub(super) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, the structure lives through the call and its true size
    // is passed; the kernel reads both and writes nothing.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the loopback device of this network namespace.
pub(super) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed() as libc::c_char;
    }
    #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
    let flags = libc::IFF_UP as libc::c_short;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    };
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives through the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Marks every descriptor above standard error to be closed by the next `exec`, whoever opened it.
pub(super) fn close_descriptors_on_exec() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed now, so none that is in use here changes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the command's process the first of a session: what a terminal or a shell sends to our process group is ours to
/// handle, and does not reach it.
pub(crate) fn in_own_session(command: &mut tokio::process::Command) {
    let begin = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec this makes one system call; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(begin) };
}

/// Lets the async runtime say when a process descriptor becomes readable.
pub(super) fn watch(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?)
}
