//! The system calls that an agent may not make: a filter that the shim takes on before it starts the
//! agent, and that every process it starts inherits and cannot leave.
//!
//! A list of what is refused, after Docker's default profile: what makes namespaces and mounts, looks into
//! other processes or hides from them, loads code into the kernel, or is a large and little-used part of it. Everything
//! refused answers `EPERM`, but `clone3`, whose flags lie in memory where a filter cannot look: it answers
//! `ENOSYS`, and C libraries fall back to `clone`. Knows nothing of agents.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why the filter could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The rules are not a filter: a mistake in this file or an unknown processor.
    #[error("building the filter of system calls")]
    Build(#[source] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("installing the filter of system calls")]
    Install(#[source] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Large parts of the kernel that no agent needs.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie,
    libc::SYS_vmsplice,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_nfsservctl,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// `CLONE_NEW…`, for `clone` and `unshare`.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `CLONE_NEWTIME`, for `unshare` only: in `clone` this bit belongs to the exit signal.
const TIME_NAMESPACE: libc::c_int = 0x80;

/// The families of sockets that stay inside the container. All others are refused: some, such as vsock,
/// are not separated by network namespaces and reach the host of a virtual machine.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// On `x86_64` the same calls have a second number each, with 32-bit pointers, where the kernel has them.
const X32_BIT: i64 = 0x4000_0000;

/// Takes the filter on, for all threads of this process and all processes that it starts from now on.
/// Cannot be undone. Sets "no new privileges" too.
pub(crate) fn install() -> Result<(), Error> {
    for program in programs()? {
        seccompiler::apply_filter_all_threads(&program).map_err(Error::Install)?;
    }
    Ok(())
}

/// The filters, in the order in which they are to be installed.
fn programs() -> Result<[BpfProgram; 2], Error> {
    Ok([
        program(absent(), libc::ENOSYS).map_err(Error::Build)?,
        program(refused().map_err(Error::Build)?, libc::EPERM).map_err(Error::Build)?,
    ])
}

fn program(rules: Rules, answer: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let answer = SeccompAction::Errno(answer.unsigned_abs());
    SeccompFilter::new(with_x32(rules), SeccompAction::Allow, answer, architecture)?.try_into()
}

fn with_x32(mut rules: Rules) -> Rules {
    if cfg!(target_arch = "x86_64") {
        let twins: Vec<_> = rules
            .iter()
            .map(|(call, list)| (call | X32_BIT, list.clone()))
            .collect();
        rules.extend(twins);
    }
    rules
}

fn absent() -> Rules {
    BTreeMap::from([(libc::SYS_clone3, Vec::new())])
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut flags: Vec<_> = NAMESPACES.to_vec();
    // Threads with descriptors of their own would have to be looked at one by one (`held`).
    let mut with_own_files = any_flag(&flags)?;
    let own_files = SeccompCmpOp::MaskedEq(mask(libc::CLONE_THREAD | libc::CLONE_FILES));
    with_own_files.push(SeccompRule::new(vec![argument(
        0,
        own_files,
        libc::CLONE_THREAD,
    )?])?);
    rules.insert(libc::SYS_clone, with_own_files);
    flags.extend([TIME_NAMESPACE, libc::CLONE_FILES]);
    rules.insert(libc::SYS_unshare, any_flag(&flags)?);
    let flag = libc::CLOSE_RANGE_UNSHARE.cast_signed();
    let unshare = argument(2, SeccompCmpOp::MaskedEq(mask(flag)), flag)?;
    rules.insert(
        libc::SYS_close_range,
        vec![SeccompRule::new(vec![unshare])?],
    );
    // Nor may a process hide what it holds.
    let undumpable = [
        argument(0, SeccompCmpOp::Eq, libc::PR_SET_DUMPABLE)?,
        argument(1, SeccompCmpOp::Eq, 0)?,
    ];
    rules.insert(
        libc::SYS_prctl,
        vec![SeccompRule::new(undumpable.to_vec())?],
    );
    let other_family = FAMILIES
        .iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, *family));
    let other_family = vec![SeccompRule::new(other_family.collect::<Result<_, _>>()?)?];
    rules.insert(libc::SYS_socket, other_family.clone());
    rules.insert(libc::SYS_socketpair, other_family);
    // TIOCSTI types into a terminal, TIOCLINUX pastes into a console.
    let requests = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| {
        #[expect(clippy::cast_possible_truncation, reason = "both are 16-bit numbers")]
        let request = request as libc::c_int;
        SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, request)?])
    });
    rules.insert(
        libc::SYS_ioctl,
        requests.into_iter().collect::<Result<_, _>>()?,
    );
    Ok(rules)
}

/// One rule for each flag: a call matches if any of them is set in its first argument.
fn any_flag(flags: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |flag: &libc::c_int| {
        let set = SeccompCmpOp::MaskedEq(mask(*flag));
        SeccompRule::new(vec![argument(0, set, *flag)?])
    };
    flags.iter().map(rule).collect()
}

fn mask(flags: libc::c_int) -> u64 {
    flags.unsigned_abs().into()
}

fn argument(
    index: u8,
    comparison: SeccompCmpOp,
    value: libc::c_int,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, comparison, mask(value))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};

    use super::*;

    /// The filter cannot be taken off, so each test wears it on a thread of its own.
    fn filtered<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worn = scope.spawn(|| {
                for program in programs().unwrap() {
                    seccompiler::apply_filter(&program).unwrap();
                }
                test()
            });
            worn.join().unwrap()
        })
    }

    fn shell(line: &str) -> String {
        let done = Command::new("/bin/sh").args(["-c", line]).output().unwrap();
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    }

    #[test]
    fn ordinary_work_goes_on_under_the_filter() {
        filtered(|| {
            assert_eq!(shell("echo a | cat; cd /; test -d usr && echo b"), "a\nb\n");
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7, "threads start");
            for family in [
                AddressFamily::INET,
                AddressFamily::INET6,
                AddressFamily::UNIX,
            ] {
                socket(family, SocketType::STREAM, None).unwrap();
            }
        });
    }

    #[test]
    fn new_namespaces_and_mounts_are_refused() {
        for line in [
            "unshare --user true",
            "unshare --mount true",
            "chroot / true",
        ] {
            let said = filtered(|| shell(line));
            let refused = said.contains("not permitted") || said.contains("ermission denied");
            assert!(refused, "{line}: {said}");
        }
    }

    #[test]
    fn sockets_that_reach_beyond_the_network_namespace_are_refused() {
        for family in [
            AddressFamily::VSOCK,
            AddressFamily::PACKET,
            AddressFamily::BLUETOOTH,
        ] {
            let refused = filtered(|| socket(family, SocketType::STREAM, None).unwrap_err());
            assert_eq!(refused, Errno::PERM, "{family:?}");
        }
    }

    #[test]
    fn no_process_hides_what_it_holds() {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        filtered(|| {
            let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
            assert_eq!(hidden, Err(Errno::PERM));
            set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        });
        let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
        for call in [
            format!("{}, {}", libc::SYS_unshare, libc::CLONE_FILES),
            format!("{}, {thread}, 0, 0, 0, 0", libc::SYS_clone),
            format!(
                "{}, 100, 100, {}",
                libc::SYS_close_range,
                libc::CLOSE_RANGE_UNSHARE
            ),
        ] {
            let line = format!("perl -e 'print syscall({call}), q( ), $! + 0'");
            let refused = format!("-1 {}", libc::EPERM);
            assert_eq!(filtered(|| shell(&line)), refused, "{call}");
        }
    }

    #[test]
    fn the_call_whose_flags_cannot_be_seen_is_absent_and_not_refused() {
        assert_eq!(
            absent().keys().copied().collect::<Vec<_>>(),
            [libc::SYS_clone3]
        );
        assert!(!refused().unwrap().contains_key(&libc::SYS_clone3));
    }
}
