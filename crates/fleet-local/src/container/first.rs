//! The container's first process, from its birth until it becomes the shim: it enters its namespaces,
//! builds its root, gives up every right, and executes what was asked.
//!
//! Two orders of the same steps. With root's rights the mounts are made before the user namespace is
//! entered: they belong to the host, paths need not be readable for the learner's user, and no kernel
//! switch for unprivileged namespaces matters. Without them the user namespace came first, in the maker.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::assemble::enter_root;
use super::error::{Doing, Error};
use super::layout::Piece;
use super::spec::{CONTAINER_USER, Limits, RootKind, WORKSPACE};
use super::syscalls::{close_descriptors_on_exec, raise_loopback, unshare};

/// What the first process says to the maker; after each it waits for the answer [`GO`].
pub(super) mod word {
    /// It dies with its parent from now on.
    pub(in super::super) const BORN: u8 = b'B';
    /// It is in its user namespace and needs its ids mapped.
    pub(in super::super) const MAP: u8 = b'M';
    /// It has given up its rights and is about to execute.
    pub(in super::super) const READY: u8 = b'R';
    /// It failed; the reason follows, and no answer is awaited.
    pub(in super::super) const FAILED: u8 = b'F';
    /// The maker's answer.
    pub(in super::super) const GO: u8 = b'G';
}

/// Everything that the first process needs, prepared before it was born.
pub(super) struct First<'a> {
    pub(super) root: &'a RootKind,
    pub(super) pieces: &'a [Piece],
    pub(super) argv: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) hostname: &'a str,
    pub(super) limits: &'a Limits,
    pub(super) holder: &'a Path,
    pub(super) privileged: bool,
}

impl First<'_> {
    /// Becomes the container; comes back only with the reason why it could not.
    pub(super) fn become_container(&self, maker: &mut UnixStream) -> Result<Infallible, Error> {
        die_with_parent()?;
        ask(maker, word::BORN)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::process::setsid().doing(|| "starting a session".into())?;
        // When the machine runs out of memory, an agent goes before Carrel. Refused is no harm.
        let _ = fs::write("/proc/self/oom_score_adj", "500");
        unshare(
            UnshareFlags::NEWNS
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWCGROUP,
        )
        .doing(|| "entering namespaces".into())?;
        rustix::system::sethostname(self.hostname.as_bytes())
            .doing(|| "setting the host name".into())?;
        raise_loopback().doing(|| "raising loopback".into())?;
        // The host's view, which is writable; the container's own /proc/sys will not be.
        let switches = open_namespace_switches()?;
        enter_root(self.root, self.pieces, self.holder)?;
        if self.privileged {
            rustix::thread::set_thread_groups(&[]).doing(|| "leaving groups".into())?;
            unshare(UnshareFlags::NEWUSER).doing(|| "entering a user namespace".into())?;
            ask(maker, word::MAP)?;
        }
        forbid_namespaces(&switches)?;
        self.give_up_rights()?;
        die_with_parent()?;
        ask(maker, word::READY)?;
        close_descriptors_on_exec().doing(|| "closing descriptors".into())?;
        rustix::process::chdir(WORKSPACE).doing(|| format!("entering {WORKSPACE}"))?;
        self.execute()
    }

    fn give_up_rights(&self) -> Result<(), Error> {
        let (user, group) = (Uid::from_raw(CONTAINER_USER), Gid::from_raw(CONTAINER_USER));
        rustix::thread::set_thread_res_gid(group, group, group)
            .doing(|| "becoming the container's group".into())?;
        rustix::thread::set_thread_res_uid(user, user, user)
            .doing(|| "becoming the container's user".into())?;
        limit(Resource::Core, 0)?;
        limit(Resource::Nproc, self.limits.pids.into())?;
        // The kernel says EINVAL at the first number that is no capability.
        for capability in (0..64).map(|number| CapabilitySet::from_bits_retain(1 << number)) {
            if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
                break;
            }
        }
        rustix::thread::clear_ambient_capability_set()
            .doing(|| "clearing ambient capabilities".into())?;
        rustix::thread::set_no_new_privs(true).doing(|| "forbidding new privileges".into())?;
        let none = CapabilitySet::empty();
        let sets = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        rustix::thread::set_capabilities(None, sets).doing(|| "dropping capabilities".into())
    }

    fn execute(&self) -> Result<Infallible, Error> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(Error::Refused("the container has no command".into()));
        };
        let log = std::io::stderr().as_fd().try_clone_to_owned();
        let log = log.doing(|| "sharing standard error".into())?;
        let failure = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .exec();
        Err(failure).doing(|| format!("executing {program}"))
    }
}

fn open_namespace_switches() -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/sys/user", flags, Mode::empty())
        .doing(|| "opening the limits of namespaces".into())
}

/// Allows no user namespace below ours (namespaces(7)), and so, without capabilities, no other either:
/// the greatest part of the kernel's surface is closed even to an agent that escapes its filter. Where we
/// are in a container ourselves, the switch may be read-only; then the filter must do.
fn forbid_namespaces(switches: &OwnedFd) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = rustix::fs::openat(switches, "max_user_namespaces", flags, Mode::empty())
        .and_then(|file| rustix::io::write(file, b"0"));
    match written {
        Ok(_) | Err(Errno::ROFS) => Ok(()),
        Err(error) => Err(error).doing(|| "forbidding namespaces below".into()),
    }
}

/// Holds for the parent *thread*, which is why the runtime starts containers on a thread of its own; is
/// cleared when ids change, so it is set twice.
fn die_with_parent() -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "binding life to the parent's".into())
}

/// The maker answers only while its own parent, which is ours too, lives.
fn ask(maker: &mut UnixStream, question: u8) -> Result<(), Error> {
    let mut answer = [0];
    maker
        .write_all(&[question])
        .and_then(|()| maker.read_exact(&mut answer))
        .doing(|| "waiting for the container maker".into())?;
    if answer == [word::GO] {
        Ok(())
    } else {
        Err(Error::NoAnswer("first process".into()))
    }
}

fn limit(resource: Resource, value: u64) -> Result<(), Error> {
    let bound = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    rustix::process::setrlimit(resource, bound).doing(|| format!("limiting {resource:?}"))
}
