//! What a long test prints of its parts.

use std::time::Instant;

/// The parts of a long test, with the time that each took.
#[derive(Debug)]
pub struct Steps {
    /// The test's name.
    pub test: &'static str,
    began: Instant,
    last: Instant,
}

impl Steps {
    /// Of a test that begins now.
    pub fn new(test: &'static str) -> Self {
        let now = Instant::now();
        Self {
            test,
            began: now,
            last: now,
        }
    }

    /// Prints how long it took since the last one.
    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the tests sees where the time goes"
    )]
    pub fn done(&mut self, what: &str) {
        let (step, all) = (self.last.elapsed(), self.began.elapsed());
        println!(
            "{}: {:6.1} s {:5.1} s  {what}",
            self.test,
            all.as_secs_f64(),
            step.as_secs_f64()
        );
        self.last = Instant::now();
    }
}
