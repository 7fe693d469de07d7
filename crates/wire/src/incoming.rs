//! Takes connections at a listener.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::tcp::prepare;
use crate::{Identity, Stream};

/// After a failed accept (as when no file descriptor is free).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// A client must have greeted by then.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// Connections as they come, with TLS where there is an identity. Dropping it closes the listener.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    identity: Option<Identity>,
    greeting: JoinSet<Option<Arrived>>,
}

/// A connection that has come.
pub struct Arrived {
    /// What is said over it.
    pub stream: Stream,
    /// Its other end.
    pub peer: SocketAddr,
}

impl Incoming {
    /// Takes connections there; without an identity as they are.
    pub fn new(listener: TcpListener, identity: Option<Identity>) -> Self {
        Self {
            listener,
            identity,
            greeting: JoinSet::new(),
        }
    }

    /// Whether they are secured by TLS.
    pub fn is_tls(&self) -> bool {
        self.identity.is_some()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection.
    ///
    /// # Cancel safety
    /// Safe: nobody who has come is lost.
    pub async fn next(&mut self) -> Arrived {
        loop {
            let accepted = tokio::select! {
                Some(greeted) = self.greeting.join_next() => match greeted {
                    Ok(Some(arrived)) => return arrived,
                    // It did not greet, or not well.
                    Ok(None) | Err(_) => continue,
                },
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            if prepare(&stream).is_err() {
                continue;
            }
            match self.identity.clone() {
                None => {
                    return Arrived {
                        stream: Box::new(stream),
                        peer,
                    };
                }
                Some(identity) => drop(self.greeting.spawn(greet(identity, stream, peer))),
            }
        }
    }
}

async fn greet(identity: Identity, stream: TcpStream, peer: SocketAddr) -> Option<Arrived> {
    match tokio::time::timeout(GREETED_WITHIN, identity.greet(stream)).await {
        Ok(Ok(stream)) => Some(Arrived {
            stream: Box::new(stream),
            peer,
        }),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a client did not agree on TLS");
            None
        }
        Err(_) => None,
    }
}
