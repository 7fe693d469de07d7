//! The final charge of a call: what was reported, or the worst of what is not known.

use carrel_core::NanoUsd;

use crate::estimate::Bound;
use crate::meter::{Meter, Progress};
use crate::price::Price;
use crate::usage::Usage;

/// What a call may have used at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worst {
    /// The input's bound.
    pub bound: Bound,
    /// The limit of output that was sent, times the answers.
    pub output_tokens: u64,
    /// The tokens set aside for thinking; 0 when the model decides or does not think.
    pub thinking_tokens: u64,
    /// Whether the model may think although the answer shows no sign of it.
    pub thinks_unseen: bool,
    /// Whether the provider's answer begins with the call. One that others pass on may begin only after all rounds of the
    /// provider's tools.
    pub begins_at_once: bool,
}

impl Worst {
    /// All of it.
    pub fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.bound.input_tokens,
            output_tokens: self.output_tokens,
            ..Usage::default()
        }
    }
}

/// How sure a charge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The provider reported it.
    Reported,
    /// The provider ended the answer and left out the count: what passed by was counted, which was all.
    Counted,
    /// The connection ended before the answer, or not all that was written passed by: the worst of what is not known is assumed.
    Assumed,
    /// The provider failed before it began: nothing.
    Nothing,
}

/// What an answer is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// What it used.
    pub usage: Usage,
    /// What that costs.
    pub cost: NanoUsd,
    /// How sure both are.
    pub basis: Basis,
}

/// What an answer is charged.
pub fn charge(meter: &Meter, worst: &Worst, price: &Price) -> Charge {
    let basis = basis(meter, worst);
    let bound = if meter.has_begun() || worst.begins_at_once {
        worst.bound.with_uses(meter.uses())
    } else {
        worst.bound
    };
    let told = meter.usage().told(bound.long_cache);
    let output_tokens = match basis {
        Basis::Reported => told.output_tokens,
        Basis::Counted => meter.seen_output_tokens(),
        Basis::Assumed => most_output(meter, worst, bound.rereads),
        Basis::Nothing => {
            return Charge {
                usage: Usage::default(),
                cost: NanoUsd::ZERO,
                basis,
            };
        }
    };
    let knows_input = meter.has_input() && (basis == Basis::Reported || bound.rereads == 0);
    let (usage, cost) = if knows_input {
        let usage = Usage {
            output_tokens,
            ..told
        };
        (usage, price.cost(&usage))
    } else {
        // Nothing is known of it, or only what was read before the provider's tools ran: it counts at its dearest.
        let usage = Usage {
            input_tokens: bound.input_tokens,
            output_tokens,
            web_searches: bound.web_searches,
            ..Usage::default()
        };
        let (input, each) = price.worst(&bound);
        (usage, input.plus(each.times(output_tokens)))
    };
    Charge { usage, cost, basis }
}

fn basis(meter: &Meter, worst: &Worst) -> Basis {
    let hides_output = meter.has_thinking() || worst.thinks_unseen;
    match meter.progress() {
        Progress::Failed if !meter.has_input() && !meter.has_content() => Basis::Nothing,
        _ if meter.has_input() && meter.has_output() => Basis::Reported,
        Progress::Complete | Progress::Failed if !hides_output => Basis::Counted,
        Progress::Open | Progress::Complete | Progress::Failed => Basis::Assumed,
    }
}

/// The most output of an answer that was not told. One that ended holds beside what passed by at most what was set aside for
/// thinking, of which a summary or nothing is shown, each time that the model was asked.
fn most_output(meter: &Meter, worst: &Worst, rereads: u64) -> u64 {
    let hidden = worst.thinking_tokens.saturating_mul(1 + rereads);
    if meter.progress() == Progress::Open || worst.thinks_unseen || hidden == 0 {
        return worst.output_tokens;
    }
    let most = meter.seen_output_tokens().saturating_add(hidden);
    most.min(worst.output_tokens)
}
