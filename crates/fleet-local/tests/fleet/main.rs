//! The fleet over a real store, with pods that do what a test tells them: the executable starts itself again as their
//! sidecars and shims.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test, which has its own main and so is not known as one"
)]

mod bed;
mod keeping;
mod making;
mod room;
mod stand_in;

use std::pin::Pin;
use std::process::ExitCode;

use carrel_fleet_local::container::container_main;

/// How a test ended that did not fail.
pub(crate) enum Outcome {
    Passed,
    Skipped(&'static str),
}

/// A named test.
pub(crate) type Test = (
    &'static str,
    fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>,
);

/// Writes tests, which are async functions, as a table.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn tests() -> Vec<$crate::Test> {
            vec![$((stringify!($name), || Box::pin($name()))),*]
        }
    };
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    match first.as_deref().and_then(|word| word.to_str()) {
        Some("container") => container_main(words),
        Some("sidecar") => stand_in::sidecar(words),
        Some("shim") => stand_in::shim(words),
        filter => run_all(filter.filter(|word| !word.starts_with('-'))),
    }
}

fn run_all(filter: Option<&str>) -> ExitCode {
    let mut passed = true;
    let tests = [keeping::tests(), making::tests(), room::tests()].concat();
    for (name, test) in tests {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        // A task of its own, so that a failed assertion ends this test only.
        match runtime.block_on(runtime.spawn(test())) {
            Ok(Outcome::Passed) => println!("test {name} ... ok"),
            Ok(Outcome::Skipped(reason)) => println!("test {name} ... skipped: {reason}"),
            Err(failure) => {
                passed = false;
                println!("test {name} ... FAILED: {failure}");
            }
        }
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
