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
    #[arg(long, env = "CARREL_POD_UID")]
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
    #[arg(long, required_unless_present = "fleet_keys")]
    pub keys: Option<PathBuf>,
    /// Those keys themselves, where there is no file.
    #[arg(long, env = "CARREL_FLEET_KEYS", conflicts_with = "keys")]
    pub fleet_keys: Option<String>,
    /// The process without which this one ends.
    #[arg(long)]
    pub parent: Option<u32>,
    /// The agent's control group file that counts out-of-memory kills (`memory.events` or `memory.oom_control`).
    #[arg(long)]
    pub memory_events: Option<PathBuf>,
    /// Where the last word of the pod is written.
    #[arg(long)]
    pub farewell: Option<PathBuf>,
    /// What the pod must be kept from by its network, as ADDRESS:PORT: while it is reached, nobody is assigned.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub must_not_reach: Vec<SocketAddr>,
    /// What the pod must reach, as HOST:PORT: before one of them is, nothing is known of what it must not.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub must_reach: Vec<String>,
    /// How long a pod that is told to end may take; a little less than what whoever tells it waits.
    #[arg(long, default_value_t = 25)]
    pub grace_seconds: u32,
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
        let text = match (&self.keys, &self.fleet_keys) {
            (Some(file), _) => fs::read_to_string(file)?,
            (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        let keys: Vec<PublicKey> = serde_json::from_str(&text)?;
        Verifier::new(&keys).map_err(std::io::Error::other)
    }

    /// Whether nobody on this machine looks after the pod who would know what ended its agent's container.
    pub(crate) fn is_on_its_own(&self) -> bool {
        self.parent.is_none()
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("it must be HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    const BARE: [&str; 9] = [
        "sidecar",
        "--pod",
        "00000000-0000-0000-0000-000000000007",
        "--listen",
        "0.0.0.0:7080",
        "--shim-socket",
        "/s",
        "--workspace",
        "/w",
    ];

    fn parse(more: &[&str]) -> Result<SidecarOptions, clap::error::ErrorKind> {
        let command = SidecarOptions::augment_args(Command::new("sidecar"));
        let matches = command.try_get_matches_from(BARE.iter().chain(more));
        let options = matches.and_then(|matches| SidecarOptions::from_arg_matches(&matches));
        options.map_err(|error| error.kind())
    }

    #[test]
    fn the_keys_come_in_one_way_and_not_in_two() {
        use clap::error::ErrorKind;
        assert!(parse(&["--keys", "/k"]).is_ok());
        let options = parse(&["--fleet-keys", "[]"]).expect("parsed");
        options.verifier().expect("no keys are keys");
        assert_eq!(
            parse(&["--keys", "/k", "--fleet-keys", "[]"]).err(),
            Some(ErrorKind::ArgumentConflict)
        );
        assert_eq!(parse(&[]).err(), Some(ErrorKind::MissingRequiredArgument));
    }

    #[test]
    fn what_is_tried_has_a_port_and_what_must_not_be_reached_is_no_name_that_nobody_tells() {
        let with = |option: &str, place: &str| parse(&["--fleet-keys", "[]", option, place]);
        let options = with("--must-not-reach", "[fd00:ec2::254]:80").expect("parsed");
        assert_eq!(
            options.must_not_reach,
            ["[fd00:ec2::254]:80".parse().expect("an address")]
        );
        let options = with("--must-reach", "vault.school.svc:7072").expect("parsed");
        assert_eq!(options.must_reach, ["vault.school.svc:7072"]);
        for (option, wrong) in [
            ("--must-not-reach", "10.0.0.1"),
            ("--must-not-reach", "kubernetes.default.svc:443"),
            ("--must-reach", ":80"),
            ("--must-reach", "10.0.0.1:http"),
        ] {
            assert_eq!(
                with(option, wrong).err(),
                Some(clap::error::ErrorKind::ValueValidation)
            );
        }
    }
}
