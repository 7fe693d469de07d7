//! What a sidecar is told on its command line. Nothing of it concerns a learner: pods are born blank.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use carrel_core::PodUid;
use carrel_protocol::token::{PublicKey, Verifier};

/// What a sidecar is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct SidecarOptions {
    /// The pod's identity.
    #[arg(long)]
    pub pod: PodUid,
    /// Where gateway and fleet call: `unix:/path` or `host:port`.
    #[arg(long)]
    pub listen: Listen,
    /// Where the shim connects: a Unix socket's path.
    #[arg(long)]
    pub shim_socket: PathBuf,
    /// The workspace, as this process sees it; empty at first.
    #[arg(long)]
    pub workspace: PathBuf,
    /// The workspace, as the agent sees it; the same when absent.
    #[arg(long)]
    pub agent_workspace: Option<PathBuf>,
    /// This executable, as the agent sees it; the same when absent.
    #[arg(long)]
    pub agent_executable: Option<PathBuf>,
    /// A JSON file with the public keys of those who may assign.
    #[arg(long)]
    pub keys: PathBuf,
    /// The process without which this one ends.
    #[arg(long)]
    pub parent: Option<u32>,
    /// The agent's control group file that counts out-of-memory kills (`memory.events` or `memory.oom_control`).
    #[arg(long)]
    pub memory_events: Option<PathBuf>,
}

/// Where a sidecar listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

/// A text that is no place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be 'unix:/path' or 'address:port'")]
pub struct ParseError(String);

impl FromStr for Listen {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(ParseError(text.to_owned())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| ParseError(text.to_owned())),
        }
    }
}

impl SidecarOptions {
    /// Verifies assignments.
    pub(crate) fn verifier(&self) -> std::io::Result<Verifier> {
        let keys: Vec<PublicKey> = serde_json::from_slice(&fs::read(&self.keys)?)?;
        Verifier::new(&keys).map_err(std::io::Error::other)
    }
}
