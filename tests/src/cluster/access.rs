//! Who may ask the API server: certificates of users, kubeconfigs, clients.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_testkit::certificates::{Authority, Certified};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// The group that may do everything.
pub(super) const MASTERS: &str = "system:masters";

/// A user's way to the API server: a kubeconfig with everything in it.
#[derive(Debug, Clone)]
pub struct Access {
    config: Value,
    /// The kubeconfig, as a file.
    pub file: PathBuf,
}

impl Access {
    /// Of a user with a certificate of the cluster's authority.
    pub(super) fn certified(
        folder: &Path,
        server: &str,
        authority: &Authority,
        user: &str,
        group: Option<&str>,
    ) -> anyhow::Result<Self> {
        let Certified { chain, key, .. } = authority.certify_user(user, group);
        let credentials = json!({
            "client-certificate-data": STANDARD.encode(chain),
            "client-key-data": STANDARD.encode(key),
        });
        Self::new(folder, server, &authority.pem, user, &credentials)
    }

    /// Of one that may do everything.
    pub(super) fn master(
        folder: &Path,
        server: &str,
        authority: &Authority,
        user: &str,
    ) -> anyhow::Result<Self> {
        Self::certified(folder, server, authority, user, Some(MASTERS))
    }

    /// Of whoever has these credentials.
    pub(super) fn new(
        folder: &Path,
        server: &str,
        authority: &str,
        user: &str,
        credentials: &Value,
    ) -> anyhow::Result<Self> {
        let cluster =
            json!({"server": server, "certificate-authority-data": STANDARD.encode(authority)});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        });
        // A user's name may hold colons, which lists of paths do not take.
        let file = folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&file, config.to_string())?;
        // Of one that others may read helm warns.
        std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        Ok(Self { config, file })
    }

    /// A client in this user's name, in this namespace where none is named.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.config.clone())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("reading a kubeconfig")?;
        Ok(kube::Client::try_from(config)?)
    }
}
