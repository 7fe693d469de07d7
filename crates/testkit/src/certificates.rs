//! An authority made for one test, and what it vouches for. All texts are PEM.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Whoever vouches for others.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// The certificate of whoever vouches for it.
    pub authority: String,
}

impl Authority {
    /// A new one of this name.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A new certificate for these host names and addresses.
    ///
    /// # Panics
    /// When one of them is no name.
    pub fn certify(&self, names: &[&str]) -> Certified {
        self.certify_until(4096, names)
    }

    /// The same, in force until this year begins.
    ///
    /// # Panics
    /// As [`Self::certify`].
    pub fn certify_until(&self, year: i32, names: &[&str]) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(&params)
    }

    /// A new certificate of a client: a user, in a group or in none.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn certify_user(&self, user: &str, group: Option<&str>) -> Certified {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certified {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            authority: self.pem.clone(),
        }
    }
}

impl Certified {
    /// What a server that shows this certificate is set up with.
    ///
    /// # Panics
    /// When certificate and key do not belong together.
    pub fn server(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider serves the protocol's versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key);
        Arc::new(config.expect("the key is the certificate's"))
    }
}
