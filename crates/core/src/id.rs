//! Identities and counters. Each is a type of its own, so that one cannot be taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends.
    #[error(
        "'{0}' must be 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    NotALabel(String),
    /// Not a UUID.
    #[error("'{0}' must be a UUID")]
    NotAUuid(String),
    /// Not 64 hexadecimal digits.
    #[error("'{0}' must be 64 hexadecimal digits")]
    NotASnapshot(String),
}

fn label(text: &str) -> Result<String, Error> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let valid = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(Error::NotALabel(text.chars().take(80).collect()))
    }
}

macro_rules! label_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                label(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label_id! {
    /// A learner's name in Carrel: a DNS label (RFC 1123) of at most 63 characters.
    LearnerId
}
label_id! {
    /// The name of a `LearnerClass`: a DNS label.
    ClassName
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| Error::NotAUuid(text.chars().take(80).collect()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// One accepted message. UUID version 7, so ids sort by the time of acceptance.
    MessageId
}
uuid_id! {
    /// One turn; one message is one turn.
    TurnId
}
uuid_id! {
    /// One pod: sidecar and agent, born blank, assigned once, never reused.
    PodUid
}
uuid_id! {
    /// A snapshot repository. A learner's id is only a name for one.
    RepositoryId
}
uuid_id! {
    /// One reservation in the ledger, settled exactly once.
    ReservationId
}
uuid_id! {
    /// One process that may own turns: a gateway replica's run.
    OwnerId
}

/// A snapshot's name in its repository: SHA-256 as 64 lower-case hexadecimal digits (restic format).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::NotASnapshot(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one. Counters never come near 2^63, the most that a store's integer holds.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// An incarnation's number; each is higher than the last, durable before the assignment. 0: never woken.
    Epoch
}
counter! {
    /// A committed state's number in a learner's history of heads. 0: nothing committed yet.
    Generation
}
counter! {
    /// A learner's durable event number, from 1, without holes.
    EventVersion
}
counter! {
    /// A lease's number: every claim of a turn is higher than the last.
    LeaseGeneration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_id_is_a_dns_label() {
        for good in ["a", "ada", "a-1", &"x".repeat(63)] {
            assert_eq!(
                good.parse::<LearnerId>().map(String::from).as_deref(),
                Ok(good)
            );
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Ada",
            "a.b",
            "../x",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<LearnerId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_snapshot_id_is_64_lower_case_digits() {
        assert!("a1".repeat(32).parse::<SnapshotId>().is_ok());
        assert!("A1".repeat(32).parse::<SnapshotId>().is_err());
        assert!("a1".repeat(31).parse::<SnapshotId>().is_err());
    }
}
