//! The system calls that an agent may not make, each called by its number inside a real container.

use anyhow::ensure;
use libc::{
    CLONE_FILES, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID,
    CLONE_NEWUSER, CLONE_NEWUTS, CLONE_THREAD, EINVAL, ENOSYS, EPERM, c_long,
};

use crate::shell;

/// No address, and no descriptor.
const NONE: c_long = -1;

/// Calls with arguments at which the kernel itself would not answer `EPERM`, but something else or with success: addresses
/// that are none, numbers that mean nothing.
const REFUSED: &[(&str, c_long, &[c_long])] = &[
    ("mount", libc::SYS_mount, &[NONE, NONE, NONE, 0, 0]),
    ("umount2", libc::SYS_umount2, &[NONE, 0x7fff_0000]),
    ("open_tree", libc::SYS_open_tree, &[NONE, NONE, 0x7fff_0000]),
    (
        "mount_setattr",
        libc::SYS_mount_setattr,
        &[NONE, NONE, 0x7fff_0000, NONE, 0],
    ),
    ("chroot", libc::SYS_chroot, &[NONE]),
    ("setns", libc::SYS_setns, &[NONE, 0]),
    ("ptrace", libc::SYS_ptrace, &[0x7fff, 0x3fff_ffff, 0, 0]),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[0x3fff_ffff, 0, 0, 0, 0, NONE],
    ),
    (
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        &[0x3fff_ffff, 0, 0, 0, 0, NONE],
    ),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, &[NONE, 0, NONE]),
    ("bpf", libc::SYS_bpf, &[NONE, NONE, 0]),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[NONE, 0, 0, NONE, 0],
    ),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, NONE]),
    (
        "io_uring_enter",
        libc::SYS_io_uring_enter,
        &[NONE, 0, 0, 0, 0, 0],
    ),
    (
        "io_uring_register",
        libc::SYS_io_uring_register,
        &[NONE, 0, 0, 0],
    ),
    ("keyctl", libc::SYS_keyctl, &[0x7fff, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, &[NONE, NONE, 0, 0, 0]),
    ("request_key", libc::SYS_request_key, &[NONE, NONE, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, &[0, NONE, 0, NONE]),
    ("finit_module", libc::SYS_finit_module, &[NONE, NONE, NONE]),
    ("personality", libc::SYS_personality, &[0xffff_ffff]),
];

const NAMESPACES: [(&str, i32); 8] = [
    ("mount", CLONE_NEWNS),
    ("control group", CLONE_NEWCGROUP),
    ("host name", CLONE_NEWUTS),
    ("messages", CLONE_NEWIPC),
    ("user", CLONE_NEWUSER),
    ("process", CLONE_NEWPID),
    ("network", CLONE_NEWNET),
    ("none", 0),
];

/// A flag that `unshare` knows not: with it the kernel answers `EINVAL`, whatever else is asked.
const UNKNOWN: i32 = libc::CLONE_PARENT_SETTID;
/// `clone` for a thread that shares no signals: the kernel answers `EINVAL`, whatever else is asked.
const IMPOSSIBLE: i32 = CLONE_THREAD | CLONE_FILES;

#[tokio::test]
async fn every_call_that_is_refused_is_refused_in_a_container() -> anyhow::Result<()> {
    let Some(up) = shell::up("every_call_that_is_refused", &["eve"]).await? else {
        return Ok(());
    };
    let mut calls: Vec<(String, c_long, Vec<c_long>, i32)> = REFUSED
        .iter()
        .map(|(name, number, arguments)| ((*name).to_owned(), *number, arguments.to_vec(), EPERM))
        .collect();
    for (name, flag) in NAMESPACES {
        let answer = if flag == 0 { EINVAL } else { EPERM };
        let flags = |more: i32| vec![c_long::from(flag | more)];
        calls.push((
            format!("unshare {name}"),
            libc::SYS_unshare,
            flags(UNKNOWN),
            answer,
        ));
        let mut arguments = flags(IMPOSSIBLE);
        arguments.resize(5, 0);
        calls.push((format!("clone {name}"), libc::SYS_clone, arguments, answer));
    }
    calls.push(("clone3".to_owned(), libc::SYS_clone3, vec![NONE, 0], ENOSYS));
    let mut script = String::from("perl -e '\n");
    for (_, number, arguments, _) in &calls {
        let words: Vec<_> = std::iter::once(number)
            .chain(arguments)
            .map(ToString::to_string)
            .collect();
        let print = ") == -1 ? $! + 0 : q(done), qq(\\n);\n";
        script.extend(["print syscall(", &words.join(", "), print]);
    }
    script.push('\'');
    let said = up.api.reply("eve", &script).await?;
    let answers: Vec<_> = said.lines().collect();
    ensure!(
        answers.len() == calls.len(),
        "{} answers: {said}",
        answers.len()
    );
    let wrong: Vec<_> = calls
        .iter()
        .zip(&answers)
        .filter(|((_, _, _, expected), answer)| **answer != expected.to_string())
        .map(|((name, _, _, expected), answer)| format!("{name}: {answer} and not {expected}"))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
