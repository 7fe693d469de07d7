//! Certificates for roles, given and renewed as cert-manager does it: a folder of its own for each, behind a link that is swapped.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use carrel_testkit::certificates::{Authority, Certified};

use crate::Roles;

/// All roles of a test are at this address.
const HOST: &str = "127.0.0.1";

impl Roles {
    /// From now on processes are started with a certificate of this authority, speak TLS, and believe it alone.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn secure(&mut self, authority: &Authority) -> anyhow::Result<()> {
        self.renew(&authority.certify(&[HOST]), &authority.pem)?;
        self.trusted = Some(authority.pem.clone());
        let (router, vault) = (&self.router, &self.vault);
        let settings = [
            ("CARREL_TLS_CERT_FILE", "tls/current/tls.crt".to_owned()),
            ("CARREL_TLS_KEY_FILE", "tls/current/tls.key".to_owned()),
            ("CARREL_TLS_CA_FILE", "tls/current/ca.crt".to_owned()),
            ("CARREL_GATEWAY_ROUTER_URL", format!("https://{router}")),
            ("CARREL_GATEWAY_VAULT_URL", format!("https://{vault}")),
        ];
        self.variables.extend(settings);
        Ok(())
    }

    /// Swaps the files of certificate, key and authorities for these, while processes run.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn renew(&self, certified: &Certified, authorities: &str) -> anyhow::Result<()> {
        let tls = self.data().join("tls");
        let name = uuid::Uuid::new_v4().to_string();
        let folder = tls.join(&name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("tls.crt"), &certified.chain)?;
        std::fs::write(folder.join("ca.crt"), authorities)?;
        let key = folder.join("tls.key");
        std::fs::write(&key, &certified.key)?;
        std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        let (link, current) = (tls.join("next"), tls.join("current"));
        symlink(name, &link)?;
        Ok(std::fs::rename(link, current)?)
    }
}
