//! Reads what a test program said: how many tests passed and failed, which were skipped and why. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// Tests, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Counts {
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// One more, which passed or failed.
    pub(super) fn count(&mut self, passed: bool) {
        self.passed += usize::from(passed);
        self.failed += usize::from(!passed);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// What a program's output says.
pub(super) struct Report {
    pub(super) counts: Counts,
    /// `SKIP <test>: <reason>`, one for each test.
    pub(super) skips: Vec<String>,
}

/// Reads the lines `test <name> ... <how it ended>` that Rust's harness and ours print, the harness's sums, and the
/// lines `SKIP <test>: <reason>` by which a test that ended well says that it did not run.
pub(super) fn read(output: &str, ended_well: bool) -> Report {
    let mut lines = Counts::default();
    let mut sums = None::<Counts>;
    let mut unrun: BTreeMap<&str, String> = BTreeMap::new();
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    for line in output.lines() {
        if let Some(sum) = line.strip_prefix("test result: ").map(sum) {
            *sums.get_or_insert_default() += sum;
        } else if let Some((name, ending)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let (word, reason) = ending.split_once([' ', ',', ':']).unwrap_or((ending, ""));
            match word {
                "ok" => lines.passed += 1,
                "FAILED" => lines.failed += 1,
                _ => {
                    unrun.insert(name, reason.trim_start().to_owned());
                }
            }
        } else if let Some((name, reason)) = line
            .strip_prefix("SKIP ")
            .and_then(|rest| rest.split_once(": "))
        {
            said.insert(name, reason.to_owned());
        }
    }
    let mut counts = Counts {
        // Something that a test started may have written into the middle of a line.
        passed: sums.map_or(lines.passed, |sums| sums.passed.saturating_sub(said.len())),
        failed: sums.map_or(lines.failed, |sums| sums.failed),
        skipped: unrun.len() + said.len(),
    };
    if !ended_well && counts.failed == 0 {
        // It died, or its time was up: whichever test it was, one did not pass.
        counts.failed = 1;
    }
    let skips = unrun.into_iter().chain(said);
    Report {
        counts,
        skips: skips
            .map(|(name, reason)| format!("SKIP {name}: {reason}"))
            .collect(),
    }
}

/// Reads `ok. 12 passed; 0 failed; 1 ignored; 0 measured; …`. What was ignored has a line of its own.
fn sum(line: &str) -> Counts {
    let mut counts = Counts::default();
    for part in line.split(['.', ';']) {
        match part.trim().split_once(' ') {
            Some((number, "passed")) => counts.passed = number.parse().unwrap_or_default(),
            Some((number, "failed")) => counts.failed = number.parse().unwrap_or_default(),
            _ => {}
        }
    }
    counts
}

/// The output without the part in which the harness repeats what tests that passed have said.
pub(super) fn without_successes(output: &str) -> String {
    let mut in_successes = false;
    let kept = output.lines().filter(|line| {
        match *line {
            "successes:" => in_successes = true,
            "failures:" => in_successes = false,
            line if line.starts_with("test result: ") => in_successes = false,
            _ => {}
        }
        !in_successes
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARNESS: &str = "
running 5 tests
test fence::a_lower_epoch_is_refused ... ok
test fence::panics - should panic ... ok
test life::slow ... ignored, needs a day
test life::stock_restic ... ok
test life::breaks ... FAILED

successes:

---- life::stock_restic stdout ----
SKIP life::stock_restic: restic is not installed

successes:
    life::stock_restic

failures:

---- life::breaks stdout ----
assertion failed

failures:
    life::breaks

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn a_test_that_says_it_was_skipped_is_counted_as_skipped_and_not_as_passed() {
        let Report { counts, skips } = read(HARNESS, false);
        assert_eq!(
            counts,
            Counts {
                passed: 2,
                failed: 1,
                skipped: 2
            }
        );
        assert_eq!(
            skips,
            [
                "SKIP life::slow: needs a day",
                "SKIP life::stock_restic: restic is not installed"
            ]
        );
    }

    #[test]
    fn a_harness_of_our_own_is_counted_by_its_lines() {
        let output = "test forks_are_bounded ... ok\ntest mounts ... skipped: kernel 4.19\ntest links ... ok\n\
                      test files ... FAILED: expected 3\nSKIP as_an_ordinary_user: no user namespaces\n";
        let Report { counts, skips } = read(output, false);
        assert_eq!(
            counts,
            Counts {
                passed: 2,
                failed: 1,
                skipped: 2
            }
        );
        assert_eq!(
            skips,
            [
                "SKIP mounts: kernel 4.19",
                "SKIP as_an_ordinary_user: no user namespaces"
            ]
        );
    }

    #[test]
    fn lines_that_were_written_into_do_not_lose_a_test() {
        let output =
            "test one ... noise\nok\ntest result: ok. 41 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(read(output, true).counts.passed, 41);
    }

    #[test]
    fn a_program_that_dies_is_a_failure_even_if_no_test_says_so() {
        let counts = read("test one ... ok\n", false).counts;
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
        assert_eq!(read("", true).counts, Counts::default());
    }

    #[test]
    fn the_last_line_names_all_three() {
        let counts = Counts {
            passed: 12,
            failed: 1,
            skipped: 3,
        };
        assert_eq!(counts.to_string(), "12 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn a_failures_output_is_shown_without_what_the_others_said() {
        let shown = without_successes(HARNESS);
        assert!(shown.contains("assertion failed"));
        assert!(shown.contains("test life::breaks ... FAILED"));
        assert!(!shown.contains("restic is not installed"));
    }
}
