//! Certificates and keys as files hold them (PEM, RFC 7468), and what can be wrong with them.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

/// Why certificates or their key cannot be used. Quotes nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no certificate.
    #[error("it holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')")]
    NoCertificate,
    /// A certificate is broken.
    #[error("a certificate in it cannot be read ({0})")]
    BadCertificate(String),
    /// There is no private key.
    #[error("it holds no private key in PEM ('-----BEGIN PRIVATE KEY-----')")]
    NoKey,
    /// The key is of no kind that serves.
    #[error("its key cannot be used ({0})")]
    BadKey(String),
    /// Key and certificate do not belong together.
    #[error("it is not the key of the certificate")]
    NotItsKey,
}

impl Error {
    /// Whether it is the key's fault and not the certificate's.
    pub fn is_of_the_key(&self) -> bool {
        match self {
            Self::NoKey | Self::BadKey(_) | Self::NotItsKey => true,
            Self::NoCertificate | Self::BadCertificate(_) => false,
        }
    }
}

/// The cryptography that every connection uses.
pub(crate) fn provider() -> CryptoProvider {
    default_provider()
}

pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|_| Error::BadCertificate("broken PEM".to_owned()))?;
    if read.is_empty() {
        return Err(Error::NoCertificate);
    }
    Ok(read)
}

/// Those who vouch for others.
pub(crate) fn authorities(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| Error::BadCertificate(error.to_string()))?;
    }
    Ok(roots)
}

/// A chain of certificates, the first of which is of this key.
pub(crate) fn certified(chain: &str, key: &str) -> Result<CertifiedKey, Error> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::NoKey)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::NotItsKey,
        rustls::Error::InvalidCertificate(why) => Error::BadCertificate(format!("{why:?}")),
        other => Error::BadKey(other.to_string()),
    })
}
