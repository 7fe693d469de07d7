//! The final charge of a call: what was reported, or the worst of what is not known.

use crate::meter::{Meter, Progress};
use crate::usage::Usage;

/// What a call may have used at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worst {
    /// The input's bound.
    pub input_tokens: u64,
    /// The limit of output that was sent, times the answers; absent: unbounded, as seen then.
    pub output_tokens: Option<u64>,
}

impl Worst {
    /// All of it.
    pub fn usage(&self, seen_output_tokens: u64) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens.unwrap_or(seen_output_tokens),
            ..Usage::default()
        }
    }
}

/// How sure a charge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The provider reported it.
    Reported,
    /// The provider ended the answer and left out the count: what passed by was counted.
    Counted,
    /// The connection ended before the answer: the worst is assumed.
    Assumed,
    /// The provider failed before it began: nothing.
    Nothing,
}

/// What an answer used.
pub fn settled(meter: &Meter, worst: &Worst) -> (Usage, Basis) {
    let reported = meter.usage();
    let input = if meter.has_input() {
        reported
    } else {
        worst.usage(0)
    };
    let with_output = |output_tokens| Usage {
        output_tokens,
        ..input
    };
    match meter.progress() {
        Progress::Failed if !meter.has_input() && !meter.has_content() => {
            (Usage::default(), Basis::Nothing)
        }
        _ if meter.has_input() && meter.has_output() => (reported, Basis::Reported),
        Progress::Complete | Progress::Failed => {
            (with_output(meter.seen_output_tokens()), Basis::Counted)
        }
        Progress::Open => {
            let output = worst.output_tokens.unwrap_or(meter.seen_output_tokens());
            (with_output(output), Basis::Assumed)
        }
    }
}
