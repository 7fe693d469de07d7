//! Certificates and keys as files hold them (PEM, RFC 7468), and what can be wrong with them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore};

/// Why certificates or their key cannot be used. Quotes nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no certificate.
    #[error("it holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')")]
    NoCertificate,
    /// A certificate is broken.
    #[error("a certificate in it cannot be read ({0})")]
    BadCertificate(String),
    /// The certificate's time is over.
    #[error("its certificate expired at {0}")]
    Expired(Timestamp),
    /// The certificate's time has not come.
    #[error("its certificate is not valid before {0}")]
    NotYetValid(Timestamp),
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
            Self::NoCertificate
            | Self::BadCertificate(_)
            | Self::Expired(_)
            | Self::NotYetValid(_) => false,
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

/// A chain of certificates, the first of which is of this key and in force.
pub(crate) fn certified(chain: &str, key: &str, now: Timestamp) -> Result<CertifiedKey, Error> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::NoKey)?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::NotItsKey,
        rustls::Error::InvalidCertificate(why) => Error::BadCertificate(format!("{why:?}")),
        other => Error::BadKey(other.to_string()),
    })?;
    certified
        .end_entity_cert()
        .map_or(Ok(()), |own| in_force(own, now))?;
    Ok(certified)
}

/// Looks at a certificate's time alone, as whoever connects does before all else: who vouches for it is for them to say, and it
/// is taken for its own authority here.
fn in_force(certificate: &CertificateDer<'_>, now: Timestamp) -> Result<(), Error> {
    let bad = |error: String| Error::BadCertificate(error);
    let mut roots = RootCertStore::empty();
    let added = roots.add(certificate.clone().into_owned());
    added.map_err(|error| bad(error.to_string()))?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let verifier = verifier.build().map_err(|error| bad(error.to_string()))?;
    let name = ServerName::try_from("anybody").expect("a name");
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    match verifier.verify_server_cert(certificate, &[], &name, &[], now) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Err(Error::Expired(timestamp(not_after))),
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => Err(Error::NotYetValid(timestamp(not_before))),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}
