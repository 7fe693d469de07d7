//! Certificates that sign themselves, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate with its key, as files in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, which is its own authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for names as `openssl` writes them: `DNS:snapshots.localhost,IP:127.0.0.1`.
    ///
    /// # Errors
    /// When there is no `openssl`, in words for a skip.
    pub fn make(folder: &Path, name: &str, names: &str) -> Result<Self, String> {
        let file = |ending: &str| folder.join(format!("{name}.{ending}"));
        let made = Self {
            certificate: file("crt"),
            key: file("key"),
        };
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "9", "-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName={names}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.certificate);
        let output = openssl
            .output()
            .map_err(|error| format!("openssl: {error}"))?;
        if output.status.success() {
            return Ok(made);
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
