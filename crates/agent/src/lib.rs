#![doc = include_str!("../README.md")]

mod compaction;
mod exchange;
mod memory;
mod model;
mod prompt;
mod server;
mod tools;
mod transcript;
mod tutor;
mod workspace;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How much of the conversation is sent with each turn, in tokens, before older parts are summarised.
pub const HISTORY_TOKENS: usize = 24_000;

/// What the executable reads from the environment (`CARREL_WORKSPACE`, `CARREL_AGENT_PORT`,
/// `ANTHROPIC_BASE_URL`, `ANTHROPIC_AUTH_TOKEN`).
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of which all that the tutor keeps is part.
    pub workspace: PathBuf,
    /// The port on 127.0.0.1 to answer on.
    pub port: u16,
    /// Where the model is, without `/v1`.
    pub model_url: String,
    /// The bearer token for it.
    pub model_token: SecretString,
    /// How long the conversation may grow, in tokens, before its older part is summarised;
    /// [`HISTORY_TOKENS`] unless there is a reason.
    pub history_tokens: usize,
}

/// Why the tutor could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The workspace is not there, or closed to us.
    #[error("opening the workspace {0}: {1}")]
    Workspace(PathBuf, String),
    /// The port is taken.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The HTTP client could not be made.
    #[error("preparing the model's client")]
    Client(#[source] reqwest::Error),
    /// The server ended.
    #[error("serving")]
    Serve(#[source] std::io::Error),
}

/// Answers turns on the loopback port until `cancel`; a turn that runs then is stopped.
pub async fn run(options: Options, cancel: CancellationToken) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::Listen(address, error))?;
    serve(listener, options, cancel).await
}

/// The same as [`run`] on a listener that is already open; the port of the options is not looked at.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let tutor = tutor::Tutor::new(options)?;
    server::serve(listener, tutor, cancel)
        .await
        .map_err(Error::Serve)
}
