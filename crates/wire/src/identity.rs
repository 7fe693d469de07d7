//! What a role shows to whoever connects.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Error;
use crate::pem::{certified, provider};

/// A certificate with its chain and its key, by which a role proves who it is. Cheap to clone; clones change together.
#[derive(Clone)]
pub struct Identity {
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// Reads a chain, the role's own certificate first, and its key; both PEM.
    ///
    /// # Errors
    /// When they cannot be used together, or the certificate is not in force.
    pub fn new(chain: &str, key: &str, now: Timestamp) -> Result<Self, Error> {
        let certified = Arc::new(certified(chain, key, now)?);
        let shown = Arc::new(Shown(RwLock::new(certified)));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .expect("the provider serves the protocol's versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is resumed would prove nothing.
        config.send_tls13_tickets = 0;
        Ok(Self {
            shown,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Shows others from the next connection on.
    ///
    /// # Errors
    /// As [`Self::new`]; then what was shown stays.
    pub fn replace(&self, chain: &str, key: &str, now: Timestamp) -> Result<(), Error> {
        let newer = Arc::new(certified(chain, key, now)?);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = newer;
        Ok(())
    }

    pub(crate) async fn greet(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}
