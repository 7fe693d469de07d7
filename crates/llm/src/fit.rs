//! The reservation: the worst case of a request, and how far its output is lowered to fit what is left of a budget.

use carrel_core::NanoUsd;

use crate::estimate::Bound;
use crate::price::Price;

/// Under this many tokens of output no answer is worth having.
pub const LEAST_OUTPUT_TOKENS: u64 = 1_024;

/// What a request asks for, as far as money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Its input.
    pub bound: Bound,
    /// The most tokens of one answer.
    pub max_tokens: u64,
    /// Tokens set aside for thinking, which the limit must exceed.
    pub thinking_tokens: u64,
    /// Whether the model may think although the answer shows no sign of it.
    pub thinks_unseen: bool,
    /// How many answers.
    pub answers: u64,
}

/// What is reserved, and the limit of output that this pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The most that the call can cost.
    pub worst: NanoUsd,
    /// The limit to send; below what was asked when the budget is near its end.
    pub max_tokens: u64,
}

impl Ask {
    /// The lowest limit of output that this request can live with.
    pub fn floor(&self) -> u64 {
        let least = LEAST_OUTPUT_TOKENS.max(self.thinking_tokens.saturating_add(1));
        least.min(self.max_tokens)
    }
}

/// The reservation with the output that was asked for.
pub fn whole(ask: &Ask, price: &Price) -> Fit {
    at(ask, price, ask.max_tokens)
}

/// The reservation that fits `left`: as asked, or with less output, not under the floor. `None` when even that is
/// too dear.
pub fn within(ask: &Ask, price: &Price, left: NanoUsd) -> Option<Fit> {
    let asked = whole(ask, price);
    if asked.worst <= left {
        return Some(asked);
    }
    let (input, each) = price.worst(&ask.bound);
    let token = each.times(ask.answers).0;
    let affordable = left.minus(input).0.checked_div(token).unwrap_or(0);
    let affordable = u64::try_from(affordable).unwrap_or(0).min(ask.max_tokens);
    (affordable >= ask.floor() && input <= left).then(|| at(ask, price, affordable))
}

fn at(ask: &Ask, price: &Price, max_tokens: u64) -> Fit {
    let (input, each) = price.worst(&ask.bound);
    let output = each.times(max_tokens.saturating_mul(ask.answers));
    Fit {
        worst: input.plus(output),
        max_tokens,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICE: Price = Price {
        input: NanoUsd(3),
        output: NanoUsd(7),
        cache_write: Some(NanoUsd(5)),
        cache_write_long: Some(NanoUsd(11)),
        ..Price::FREE
    };

    fn ask(input_tokens: u64, max_tokens: u64, thinking_tokens: u64, answers: u64) -> Ask {
        let bound = Bound {
            input_tokens,
            ..Bound::default()
        };
        Ask {
            bound,
            max_tokens,
            thinking_tokens,
            thinks_unseen: false,
            answers,
        }
    }

    #[test]
    fn output_is_lowered_to_what_fits_and_no_further_than_the_floor() {
        let ask = ask(1_000, 8_000, 0, 1);
        let whole = 1_000 * 5 + 8_000 * 7;
        let least = 1_000 * 5 + 1_024 * 7;
        let fit =
            |left| within(&ask, &PRICE, NanoUsd(left)).map(|fit| (fit.max_tokens, fit.worst.0));
        assert_eq!(fit(whole), Some((8_000, whole)));
        assert_eq!(fit(whole - 1), Some((7_999, whole - 7)));
        assert_eq!(fit(least), Some((1_024, least)));
        assert_eq!(fit(least - 1), None);
        assert_eq!(fit(-5), None);
    }

    #[test]
    fn a_thinking_budget_or_a_small_ask_moves_the_floor() {
        assert_eq!(ask(1, 8_000, 4_000, 1).floor(), 4_001);
        assert_eq!(ask(1, 300, 0, 1).floor(), 300);
        assert_eq!(
            within(&ask(0, 300, 0, 1), &PRICE, NanoUsd(300 * 7 - 1)),
            None
        );
    }

    #[test]
    fn what_is_free_fits_an_empty_budget() {
        let fit = within(&ask(9_000, 8_000, 0, 2), &Price::FREE, NanoUsd::ZERO);
        assert_eq!(
            fit.map(|fit| (fit.worst, fit.max_tokens)),
            Some((NanoUsd::ZERO, 8_000))
        );
    }

    #[test]
    fn an_hours_cache_makes_the_input_dearer() {
        let mut long = ask(10, 1, 0, 1);
        long.bound.long_cache = true;
        assert_eq!(whole(&long, &PRICE).worst, NanoUsd(10 * 11 + 7));
    }

    proptest! {
        #[test]
        fn a_fit_is_never_above_what_is_left_nor_above_the_ask(
            input in 0u64..100_000, max in 1u64..200_000, thinking in 0u64..50_000, answers in 1u64..4, left in -10i64..2_000_000,
        ) {
            let ask = ask(input, max, thinking, answers);
            match within(&ask, &PRICE, NanoUsd(left)) {
                Some(fit) => {
                    prop_assert!(fit.worst.0 <= left && fit.max_tokens <= max && fit.max_tokens >= ask.floor());
                }
                None => prop_assert!(at(&ask, &PRICE, ask.floor()).worst.0 > left),
            }
        }
    }
}
