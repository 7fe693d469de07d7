//! Listeners: two TCP ports, and the vault's Unix socket.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::exit::{Failure, Kind};

/// Binds an address such as `127.0.0.1:7070`; port 0 picks a free one.
pub(super) async fn bind(address: &str, flag: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::new(
            Kind::Usage,
            format!("{flag} '{address}' must be IP:PORT, as in 127.0.0.1:7070"),
        )
    })?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let message =
            format!("{flag} {address} cannot be listened on: {error}; port 0 picks a free one");
        Failure::new(Kind::Failed, message)
    })?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Binds a Unix socket to which every user of this machine may connect: pods run as users of their own, and the vault
/// asks each for its learner's token.
pub(super) fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until cancelled; then lets running requests end.
pub(super) async fn until<L>(listener: L, app: Router, cancel: CancellationToken)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "a listener failed");
    }
}

/// Binds the router's egress port, where there is to be one.
pub(super) async fn bind_egress(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    match config.router.egress_listen.as_str() {
        "" => Ok(None),
        address => Ok(Some(bind(address, "router.egressListen").await?.0)),
    }
}
