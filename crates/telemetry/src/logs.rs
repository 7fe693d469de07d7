//! Logging: one subscriber for the process, to stderr, as text or JSON lines.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines are written.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is malformed.
    #[error("the log filter '{0}' must be directives as in 'info,carrel_gateway=debug'")]
    Filter(String),
    /// Logging was started before in this process.
    #[error("logging is started already")]
    Started,
}

/// Starts logging to stderr with a filter such as `info` or `warn,carrel_vault=debug`.
///
/// # Errors
/// When the filter is malformed or logging was started before.
pub fn start(format: LogFormat, filter: &str, colour: bool) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|_| Error::Filter(filter.chars().take(120).collect()))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(colour);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(|_| Error::Started)
}

/// An error with its causes on one line, for a log: `connecting: connection refused`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
