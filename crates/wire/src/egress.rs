//! The way out for agents: which hosts they may reach, the connection to one, and what goes through it. For whoever lets
//! them out, which is the sidecar itself or the router's egress port for it.

mod policy;
mod tunnel;

use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::tcp::prepare;

pub use policy::Policy;
pub use tunnel::{Moved, tunnel};

/// How long a host may take to answer at one of its addresses.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// Why a connection was not made, in words for the agent's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names no host.
    #[error("name a host and a port")]
    NoHost,
    /// The class does not allow it.
    #[error("'{0}' is not among the hosts that this class allows (spec.egress.allow)")]
    NotAllowed(String),
    /// The name stands for an address that agents may not reach.
    #[error("'{0}' has no public address")]
    NotPublic(String),
    /// It could not be reached.
    #[error("'{0}' cannot be reached")]
    Unreachable(String),
}

impl Refusal {
    /// The status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::NotAllowed(_) | Self::NotPublic(_) => StatusCode::FORBIDDEN,
            Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// The host, in lower case, and the port that a request for a way out names.
///
/// # Errors
/// It names none.
pub fn target(uri: &Uri, port: u16) -> Result<(String, u16), Refusal> {
    let host = uri.host().ok_or(Refusal::NoHost)?;
    let host = host
        .trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase();
    Ok((host, uri.port_u16().unwrap_or(port)))
}

/// Connects to a host that the policy allows, at an address that it allows: to what was resolved and checked, and to nothing
/// else.
///
/// # Errors
/// The policy refuses, or nobody answers.
pub async fn connect(policy: &Policy, host: &str, port: u16) -> Result<TcpStream, Refusal> {
    if !policy.allows_host(host) {
        return Err(Refusal::NotAllowed(host.to_owned()));
    }
    let unreachable = || Refusal::Unreachable(host.to_owned());
    let found = timeout(CONNECTED_WITHIN, lookup_host((host, port))).await;
    let mut is_public = false;
    for address in found
        .map_err(|_| unreachable())?
        .map_err(|_| unreachable())?
    {
        if !policy.allows_address(address.ip()) {
            continue;
        }
        is_public = true;
        // The name is not resolved again.
        let connected = timeout(CONNECTED_WITHIN, TcpStream::connect(address)).await;
        if let Ok(Ok(stream)) = connected
            && prepare(&stream).is_ok()
        {
            return Ok(stream);
        }
    }
    Err(if is_public {
        unreachable()
    } else {
        Refusal::NotPublic(host.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_allowed_and_stands_for_this_machine_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let allowed = Policy::new(&["localhost".to_owned(), "127.0.0.0/8".to_owned()]);
        for host in ["localhost", "127.0.0.1"] {
            let refused = connect(&allowed, host, port).await.map(drop);
            assert_eq!(refused, Err(Refusal::NotPublic(host.to_owned())));
        }
        let refused = connect(&Policy::new(&[]), "localhost", port).await;
        assert_eq!(
            refused.map(drop),
            Err(Refusal::NotAllowed("localhost".to_owned()))
        );
    }

    #[test]
    fn a_host_is_named_by_the_authority_of_a_request() {
        let named = |uri: &str| target(&uri.parse().unwrap(), 443);
        assert_eq!(
            named("Example.org.:8443"),
            Ok(("example.org".to_owned(), 8443))
        );
        assert_eq!(
            named("[2001:db8::1]:443"),
            Ok(("2001:db8::1".to_owned(), 443))
        );
        assert_eq!(named("/path"), Err(Refusal::NoHost));
    }
}
