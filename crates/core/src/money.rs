//! Money in integer nano-USD (10⁻⁹ US dollar): no rounding, no floating point.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const NANO: i64 = 1_000_000_000;

/// An amount of money in nano-USD. Negative only as a difference.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

/// A text that is not an amount of US dollars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be US dollars from 0 to 9000000000 with at most 9 decimals, as in '0.50'")]
pub struct ParseError(String);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; at the type's end it stays there, which no budget reaches.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, which may be negative.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `count` times this price.
    pub fn times(self, count: u64) -> Self {
        Self(
            self.0
                .saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)),
        )
    }
}

impl std::iter::Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::plus)
    }
}

impl fmt::Display for NanoUsd {
    /// US dollars with nine decimals, trailing zeros cut down to two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let nano = NANO.unsigned_abs();
        let decimals = format!("{:09}", magnitude % nano);
        let kept = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{}.{}", magnitude / nano, &decimals[..kept])
    }
}

impl FromStr for NanoUsd {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError(text.chars().take(40).collect());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 9 || whole.len() > 10 {
            return Err(error());
        }
        let whole: i64 = whole.parse().map_err(|_| error())?;
        let fraction: i64 = format!("{decimals:0<9}").parse().map_err(|_| error())?;
        if whole > 9_000_000_000 {
            return Err(error());
        }
        Ok(Self(whole * NANO + fraction))
    }
}

/// An amount as documents write it: US dollars in a string, `"0.50"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Usd(pub NanoUsd);

impl TryFrom<String> for Usd {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse().map(Self)
    }
}

impl From<Usd> for String {
    fn from(usd: Usd) -> Self {
        usd.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_and_written_exactly() {
        for (text, nano) in [
            ("0.50", 500_000_000),
            ("5.00", 5_000_000_000),
            ("0.000000001", 1),
            ("12.345", 12_345_000_000),
        ] {
            let parsed: NanoUsd = text.parse().expect(text);
            assert_eq!(parsed, NanoUsd(nano));
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("3".parse::<NanoUsd>(), Ok(NanoUsd(3_000_000_000)));
        assert_eq!(NanoUsd(-1_500_000_000).to_string(), "-1.50");
    }

    #[test]
    fn what_is_not_dollars_is_refused() {
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e3",
            "0.0000000001",
            "99999999999",
            "1,5",
        ] {
            assert!(bad.parse::<NanoUsd>().is_err(), "{bad:?} was taken");
        }
    }
}
