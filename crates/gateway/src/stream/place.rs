//! The id of a stream event: `<version>.<step>`.

use std::fmt;
use std::str::FromStr;

use carrel_core::EventVersion;

/// A place in a learner's stream. Durable events have step 0; live ones after them count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// The learner's durable event version.
    pub(crate) version: EventVersion,
    /// How many live events after it.
    pub(crate) step: u64,
}

impl Place {
    pub(crate) const fn durable(version: EventVersion) -> Self {
        Self { version, step: 0 }
    }

    /// Just before a durable event, after every live one that precedes it.
    pub(crate) const fn before(version: EventVersion) -> Self {
        Self {
            version: EventVersion(version.0.saturating_sub(1)),
            step: u64::MAX,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.step)
    }
}

/// A text that is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an id of this stream, as in '12.3'")]
pub(crate) struct ParseError;

impl FromStr for Place {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (version, step) = text.split_once('.').unwrap_or((text, "0"));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        Ok(Self {
            version: EventVersion(number(version).ok_or(ParseError)?),
            step: number(step).ok_or(ParseError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ordered_by_version_then_step() {
        let place = |text: &str| text.parse::<Place>().expect("a place");
        assert!(place("2.9") < place("2.10"));
        assert!(place("2.10") < place("10.0"));
        assert!(Place::before(EventVersion(3)) < place("3.0"));
        assert!(place("2.77") < Place::before(EventVersion(3)));
        assert_eq!(place("7.1").to_string(), "7.1");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in [
            "",
            ".",
            "1.",
            "-1.0",
            "1.2.3",
            "+1.0",
            "99999999999999999999.0",
            "a",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?} was taken");
        }
    }
}
