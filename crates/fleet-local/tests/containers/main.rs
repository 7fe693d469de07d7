//! Real containers, and real attempts to break out of them: as root if the test is, and as an ordinary
//! user. The executable starts itself again, as the runtime's maker and as the agent inside.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, which has its own main and so is not known as one"
)]

mod fixture;
mod images;
mod inside;
mod isolation;
mod life;
mod limits;
mod pods;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use carrel_fleet_local::container::{Isolation, container_main};
use fixture::{Bed, Outcome};

/// An ordinary user that no system has, for the second round when the first was root's.
const ORDINARY_USER: u32 = 12_345;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("container") => container_main(words),
        Some("inside") => inside::run(words),
        Some("leaver") => life::leaver(words),
        Some("lingerer") => life::lingerer(words),
        Some("sidecar") => pods::sidecar(),
        Some("shim") => pods::shim(),
        filter => {
            let all_passed = run_all(filter.filter(|word| !word.starts_with('-')));
            if all_passed {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run_all(filter: Option<&str>) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let passed = runtime.block_on(Box::pin(run_round(filter)));
    run_as_ordinary_user(filter) && passed
}

async fn run_round(filter: Option<&str>) -> bool {
    let bed = Bed::new();
    let user = rustix::process::geteuid().as_raw();
    match bed.runtime.detect().await {
        Isolation::Oci {
            rootless,
            limits_missing,
        } => {
            println!(
                "user {user}: containers, rootless {rootless}, not limited {limits_missing:?}"
            );
        }
        Isolation::Process { reason } => {
            let required = std::env::var_os("CARREL_REQUIRE")
                .is_some_and(|list| list.to_string_lossy().split(',').any(|word| word == "oci"));
            println!("SKIP containers_of_user_{user}: none can be started here: {reason}");
            return !required;
        }
    }
    let mut passed = true;
    let mut tests = isolation::tests();
    tests.extend(limits::tests());
    tests.extend(life::tests());
    tests.extend(images::tests());
    tests.extend(pods::tests());
    for (name, test) in tests {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let bed = Bed::new();
        // A task of its own, so that a failed assertion ends this test only.
        let local = tokio::task::LocalSet::new();
        let task = local.spawn_local(async move { test(bed).await });
        match local.run_until(task).await {
            Ok(Outcome::Passed) => println!("test {name} ... ok"),
            Ok(Outcome::Skipped(reason)) => println!("test {name} ... skipped: {reason}"),
            Err(failure) => {
                passed = false;
                println!("test {name} ... FAILED: {failure}");
            }
        }
    }
    passed
}

/// The same tests again without root's rights, from a copy that the other user can execute.
fn run_as_ordinary_user(filter: Option<&str>) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let copy = folder.path().join("containers");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command
        .uid(ORDINARY_USER)
        .gid(ORDINARY_USER)
        .current_dir("/");
    command.args(filter.map(OsString::from));
    command.status().unwrap().success()
}
