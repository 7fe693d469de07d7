//! Whose word is taken for who a role is.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::Error;
use crate::pem::{authorities, provider};

/// The authorities whose word is taken. Cheap to clone; clones change together.
#[derive(Clone)]
pub struct Trust {
    believed: Arc<Believed>,
    config: Arc<ClientConfig>,
}

/// The verifier of every connection, whoever is believed at the time.
#[derive(Debug)]
struct Believed {
    provider: Arc<CryptoProvider>,
    held: RwLock<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    /// Empty: the machine's.
    pem: String,
    /// The machine's are read when they are first needed: there are many.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Default for Trust {
    /// The machine's authorities.
    fn default() -> Self {
        let verifier = None;
        let pem = String::new();
        Self::holding(Arc::new(provider()), Held { pem, verifier })
    }
}

impl Trust {
    /// The authorities of this text alone, in PEM.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be used.
    pub fn new(pem: &str) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let held = held(pem, &provider)?;
        Ok(Self::holding(provider, held))
    }

    /// Those that the [`Self::authorities`] of another process are.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn of(authorities: &str) -> Result<Self, Error> {
        if authorities.is_empty() {
            return Ok(Self::default());
        }
        Self::new(authorities)
    }

    fn holding(provider: Arc<CryptoProvider>, held: Held) -> Self {
        let believed = Arc::new(Believed {
            provider: Arc::clone(&provider),
            held: RwLock::new(held),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider serves the protocol's versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&believed) as _)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection asks for proof.
        config.resumption = Resumption::disabled();
        Self {
            believed,
            config: Arc::new(config),
        }
    }

    /// Takes others from the next connection on.
    ///
    /// # Errors
    /// As [`Self::new`]; then those of before stay.
    pub fn replace(&self, pem: &str) -> Result<(), Error> {
        let newer = held(pem, &self.believed.provider)?;
        *self
            .believed
            .held
            .write()
            .unwrap_or_else(PoisonError::into_inner) = newer;
        Ok(())
    }

    /// The authorities in PEM; empty: the machine's.
    pub fn authorities(&self) -> String {
        self.believed.held().pem
    }

    /// For clients of other crates: connections by it believe whom this believes at the time.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn held(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Held, Error> {
    Ok(Held {
        pem: pem.to_owned(),
        verifier: Some(verifier(authorities(pem)?, provider)?),
    })
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::BadCertificate(error.to_string()))
}

impl Believed {
    fn held(&self) -> Held {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        if let Some(verifier) = self.held().verifier {
            return Ok(verifier);
        }
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of this machine's certificate authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        // One that cannot be used vouches for nobody, and is no reason to refuse the others.
        roots.add_parsable_certificates(found.certs);
        let verifier = verifier(roots, &self.provider).map_err(|error| {
            rustls::Error::General(format!("this machine's authorities: {error}"))
        })?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.pem.is_empty() {
            held.verifier = Some(Arc::clone(&verifier));
        }
        Ok(verifier)
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = self.verifier()?;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
