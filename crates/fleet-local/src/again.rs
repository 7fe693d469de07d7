//! For tests that need a process of their own: the same program runs one of them again, alone.

use std::fs::File;
use std::process::Command;

use rustix::process::{Resource, Rlimit};

/// Set where a test runs again.
const AGAIN: &str = "CARREL_TEST_AGAIN";
/// Enough for a test that runs alone.
const DESCRIPTORS: u64 = 256;

/// Whether this is the process that one test has for itself.
pub(crate) fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Runs a test, named with its modules, in a process of its own.
pub(crate) fn succeeds(test: &str) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(AGAIN, "1")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Prepares to run a test, named with its modules, in a process below one that nothing in its namespace can end; `None` where
/// no namespace can be entered. A workspace is that one's alone.
pub(crate) fn below_one_that_nobody_ends(test: &str) -> Option<Command> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--pid", "--fork"])
            .args(["--mount-proc", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap());
        command
    };
    if !unshare("true").status().is_ok_and(|ended| ended.success()) {
        return None;
    }
    let script = format!("unset CARREL_WORKSPACE; $0 --exact {test}; exit $?");
    let mut command = unshare(&script);
    command.env(AGAIN, "1");
    Some(command)
}

/// Takes every descriptor that this process may have but so many.
pub(crate) fn take_descriptors_but(left: usize) -> Vec<File> {
    let few = Rlimit {
        current: Some(DESCRIPTORS),
        ..rustix::process::getrlimit(Resource::Nofile)
    };
    rustix::process::setrlimit(Resource::Nofile, few).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - left);
    taken
}
