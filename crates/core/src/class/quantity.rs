//! Kubernetes quantities, as far as a class needs them: processor time and bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be a Kubernetes quantity such as '{1}'")]
pub struct Error(String, &'static str);

/// Processor time in thousandths of a core: `500m`, `2`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuMillis(pub u32);

impl FromStr for CpuMillis {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error(text.chars().take(40).collect(), "500m");
        let millis = if let Some(millis) = text.strip_suffix('m') {
            millis.parse::<u32>().map_err(|_| error())?
        } else {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
            if decimals.is_empty() || decimals.len() > 3 {
                return Err(error());
            }
            let whole: u32 = whole.parse().map_err(|_| error())?;
            let decimals: u32 = format!("{decimals:0<3}").parse().map_err(|_| error())?;
            whole
                .checked_mul(1000)
                .and_then(|w| w.checked_add(decimals))
                .ok_or_else(error)?
        };
        Ok(Self(millis))
    }
}

impl TryFrom<String> for CpuMillis {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<CpuMillis> for String {
    fn from(cpu: CpuMillis) -> Self {
        cpu.to_string()
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// Bytes: `512Mi`, `1Gi`, `1000`, `5M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error(text.chars().take(40).collect(), "512Mi");
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, *unit)))
            .unwrap_or((text, 1));
        let count: u64 = digits.parse().map_err(|_| error())?;
        count
            .checked_mul(unit)
            .filter(|b| i64::try_from(*b).is_ok())
            .map(Self)
            .ok_or_else(error)
    }
}

impl TryFrom<String> for Bytes {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS
            .iter()
            .take(4)
            .find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match binary {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        assert_eq!("500m".parse(), Ok(CpuMillis(500)));
        assert_eq!("2".parse(), Ok(CpuMillis(2000)));
        assert_eq!("0.25".parse(), Ok(CpuMillis(250)));
        assert_eq!("512Mi".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("5M".parse(), Ok(Bytes(5_000_000)));
        assert_eq!("17".parse(), Ok(Bytes(17)));
        assert_eq!(Bytes(1 << 30).to_string(), "1Gi");
        assert_eq!(Bytes(1000).to_string(), "1000");
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for bad in ["", "m", "-1", "1.2345", "1 Gi", "9999999Ti", "x"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?} was taken as bytes");
            assert!(
                bad.parse::<CpuMillis>().is_err(),
                "{bad:?} was taken as processor time"
            );
        }
    }
}
