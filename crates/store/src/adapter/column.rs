//! Values as columns hold them, and back.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A value that no implementation could have written, or that makes no sense, in words for a person.
#[derive(Debug)]
pub struct Impossible(pub String);

impl Impossible {
    fn from_error(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

/// Nanoseconds since 1970; what lies beyond the years that fit stays at the end.
pub fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The time of a column of nanoseconds.
pub fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).expect("64 bits of nanoseconds are within its range")
}

/// A counter as a column holds it.
pub fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter from a column; they are never negative.
pub fn count(int: i64) -> u64 {
    u64::try_from(int).unwrap_or_default()
}

/// A small counter from a column.
pub fn small(int: i64) -> u32 {
    u32::try_from(int.max(0)).unwrap_or(u32::MAX)
}

/// A UUID from its 16 bytes.
pub fn uuid(bytes: &[u8]) -> Result<Uuid, Impossible> {
    Uuid::from_slice(bytes).map_err(Impossible::from_error)
}

/// A value from its text.
pub fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Impossible> {
    text.parse().map_err(Impossible::from_error)
}

/// A value from its text, if there is one.
pub fn parsed_option<T: FromStr<Err: Display>>(
    text: Option<&str>,
) -> Result<Option<T>, Impossible> {
    text.map(parsed).transpose()
}

/// A document from a column of JSON.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Impossible> {
    serde_json::from_str(text).map_err(Impossible::from_error)
}

/// A document for a column of JSON.
pub fn to_json<T: Serialize>(value: &T) -> Result<String, Impossible> {
    serde_json::to_string(value).map_err(Impossible::from_error)
}
