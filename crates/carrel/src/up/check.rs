//! What can be found wrong before a start makes anything: settings, files of keys, addresses. A start that is refused here
//! leaves the machine as it was.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use carrel_protocol::token::Signer;
use carrel_vault::Keyring;
use tokio::net::TcpListener;

use super::models::{self, Models};
use super::{data, documents, objects, serve, store};
use crate::cli::Up;
use crate::config::{Config, FleetKind, Loaded, StoreAt, Tls};
use crate::exit::{Failure, Kind};

/// What a start needs that is sure to be there.
pub(super) struct Checked {
    pub(super) models: Models,
    /// Of the gateway.
    pub(super) gateway: (TcpListener, SocketAddr),
    /// Of the model router.
    pub(super) router: (TcpListener, SocketAddr),
    /// Of the model router's egress port.
    pub(super) egress: Option<TcpListener>,
}

/// Checks all that needs nothing to be made. `dir` is the data folder, which need not be there.
pub(super) async fn check(flags: &Up, dir: &Path, loaded: &Loaded) -> anyhow::Result<Checked> {
    let config = &loaded.config;
    if dir.exists() && !dir.is_dir() {
        let message = format!("{} is no folder: name one by --data-dir", dir.display());
        return Err(Failure::new(Kind::Usage, message).into());
    }
    if let StoreAt::File(file) = store::at(&config.store)? {
        let file = dir.join(file);
        is_beside_something("store.url", &file, dir)?;
        if !file.exists() {
            documents::check(loaded, None).await?;
        }
    }
    if config.tls != Tls::default() {
        let message = "tls: it is for roles that are processes of their own ('carrel gateway', …): leave it away, and put a \
            proxy that has a certificate before 'carrel up' (gateway.publicUrl, gateway.trustedProxies)";
        return Err(Failure::new(Kind::Usage, message).into());
    }
    if config.gateway.fleet != FleetKind::Local {
        let message = "gateway.fleet: 'carrel up' has a fleet of its own: leave it away; on Kubernetes each role is a process of its own ('carrel gateway', …)";
        return Err(Failure::new(Kind::Usage, message).into());
    }
    keys(dir, config)?;
    objects::check(dir, &config.objects)?;
    let models = models::options(config)?;
    let gateway = flags.listen.as_deref().unwrap_or(&config.gateway.listen);
    let router = flags.model_listen.as_deref();
    let router = router.unwrap_or(&config.router.listen);
    Ok(Checked {
        models,
        gateway: serve::bind(gateway, "--listen").await?,
        router: serve::bind(router, "--model-listen").await?,
        egress: serve::bind_egress(config).await?,
    })
}

/// Files of keys that are there must serve; the others are made.
fn keys(dir: &Path, config: &Config) -> anyhow::Result<()> {
    let keys = &config.keys;
    let place = |key: &str, file: &str| {
        let path = dir.join(file);
        is_beside_something(&format!("keys.{key}"), &path, dir).map(|()| path)
    };
    data::read(&place("adminTokenFile", &keys.admin_token_file)?)?;
    let signing = place("signingKeyFile", &keys.signing_key_file)?;
    if let Some(pem) = data::read(&signing)? {
        signer(&signing, &pem)?;
    }
    let kek = place("kekFile", &keys.kek_file)?;
    if kek.exists() {
        let wrong = |error: carrel_vault::Error| {
            Failure::new(Kind::Usage, format!("{:#}", anyhow::Error::from(error)))
        };
        Keyring::read(&kek).map_err(wrong)?;
    }
    Ok(())
}

/// The signing key in a file's text.
pub(super) fn signer(path: &Path, pem: &str) -> anyhow::Result<Signer> {
    let wrong = |error| Failure::new(Kind::Usage, format!("{}: {error}", path.display()));
    Signer::from_pem(pem)
        .map_err(wrong)
        .context("reading the signing key")
}

/// A file can be made only in a folder that is there, or in the data folder.
fn is_beside_something(key: &str, file: &Path, dir: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(folder) if folder != dir && !folder.is_dir() => {
            let message = format!("{key}: there is no folder {}: make it", folder.display());
            Err(Failure::new(Kind::Usage, message).into())
        }
        _ => Ok(()),
    }
}
