//! Values as columns hold them, and back.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::fault::{Fault, Inner};

/// Nanoseconds since 1970; what lies beyond the years that fit stays at the end.
pub(crate) fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The time of a column of nanoseconds.
pub(crate) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).expect("64 bits of nanoseconds are within its range")
}

/// A counter as a column holds it.
pub(crate) fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter from a column; they are never negative.
pub(crate) fn count(int: i64) -> u64 {
    u64::try_from(int).unwrap_or_default()
}

/// A small counter from a column.
pub(crate) fn small(int: i64) -> u32 {
    u32::try_from(int.max(0)).unwrap_or(u32::MAX)
}

/// A UUID from its 16 bytes.
pub(crate) fn uuid(bytes: &[u8]) -> Inner<Uuid> {
    Uuid::from_slice(bytes).map_err(|error| Fault::Impossible(error.to_string()))
}

/// A value from its text.
pub(crate) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Inner<T> {
    text.parse()
        .map_err(|error: T::Err| Fault::Impossible(error.to_string()))
}

/// A value from its text, if there is one.
pub(crate) fn parsed_option<T: FromStr<Err: Display>>(text: Option<&str>) -> Inner<Option<T>> {
    text.map(parsed).transpose()
}

/// A document from a column of JSON.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Inner<T> {
    serde_json::from_str(text).map_err(|error| Fault::Impossible(error.to_string()))
}

/// A document for a column of JSON.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Inner<String> {
    serde_json::to_string(value).map_err(|error| Fault::Impossible(error.to_string()))
}
