//! Who may vouch for the server across a network: the authorities of the file that the URL names (`sslrootcert`), else those of
//! this machine; besides them those that are built in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The server proves who it is.
pub(crate) fn verified(options: PgConnectOptions) -> PgConnectOptions {
    let url = options.to_url_lossy();
    let names_a_file = url.query_pairs().any(|(name, _)| name == "sslrootcert");
    let options = options.ssl_mode(PgSslMode::VerifyFull);
    if names_a_file {
        return options;
    }
    options.ssl_root_cert_from_pem(of_this_machine().into_bytes())
}

/// The machine's authorities as PEM (RFC 7468), without those that would be refused: one such would refuse every server.
fn of_this_machine() -> String {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of this machine's certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let usable = found
        .certs
        .into_iter()
        .filter(|certificate| roots.add(certificate.clone()).is_ok());
    let pem = |der: &[u8]| {
        let body = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    usable.map(|certificate| pem(&certificate)).collect()
}
