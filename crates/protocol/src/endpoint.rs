//! Where a role listens: a Unix socket or a URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place to connect to: `unix:/run/vault.sock`, `http://127.0.0.1:7071`, `https://vault:7072`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket's path; HTTP is spoken over it.
    Unix(PathBuf),
    /// A base URL without a slash at its end.
    Url(String),
}

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be 'unix:/path', 'http://host:port' or 'https://host'")]
pub struct ParseError(String);

impl Endpoint {
    /// The base of URLs for requests there; over a Unix socket the host is a name without meaning.
    pub fn base_url(&self) -> &str {
        match self {
            Self::Unix(_) => "http://carrel",
            Self::Url(url) => url,
        }
    }
}

impl FromStr for Endpoint {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|p| p.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        match rest {
            Some(rest) if !rest.is_empty() && !rest.starts_with('/') => {
                Ok(Self::Url(text.trim_end_matches('/').to_owned()))
            }
            _ => Err(ParseError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_being_written_and_read() {
        for text in [
            "unix:/run/v.sock",
            "http://127.0.0.1:7071",
            "https://vault.example/base",
        ] {
            assert_eq!(
                text.parse::<Endpoint>().map(|e| e.to_string()).as_deref(),
                Ok(text)
            );
        }
        for bad in ["", "unix:relative", "ftp://x", "http://", "/run/v.sock"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?} was taken");
        }
    }
}
