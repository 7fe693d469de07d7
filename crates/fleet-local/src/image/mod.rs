//! Images: pulled from a registry, checked against their digests, and unpacked into a folder that
//! containers use as their read-only root.
//!
//! `ROOT/sha256-…/rootfs` is the unpacked image of that manifest digest and `image.json` beside it what a
//! container needs to know of it; `ROOT/names/…` says which digest a name had when it was pulled. Nothing
//! is half there: an image is unpacked aside and renamed. Called by the fleet; knows nothing of learners.

mod confined;
mod loopback;
mod unpack;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::container::RootKind;
use loopback::{is_on_loopback, speaks_no_tls};

/// A registry that cannot be reached by then is away.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A pull may take long as long as something comes.
const SILENT_AT_MOST: Duration = Duration::from_secs(30);
/// How the names of unfinished images begin.
const ASIDE: &str = ".unpacking-";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not an image reference.
    #[error("reading image name {name:?}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        #[source]
        source: oci_client::ParseError,
    },
    /// The registry did not give the image, or gave something else than its digest says.
    #[error("pulling {name}")]
    Pull {
        /// The image.
        name: String,
        /// The registry's answer.
        #[source]
        source: Box<OciDistributionError>,
    },
    /// The image's own description is not one.
    #[error("reading the configuration of {name}")]
    Configuration {
        /// The image.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A layer contains what it must not, or more than it may.
    #[error("unpacking: {0}")]
    Layer(String),
    /// The disk refused.
    #[error("{doing}")]
    Disk {
        /// What was being done, to what.
        doing: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// An image on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Its unpacked files.
    pub rootfs: PathBuf,
    /// Its entry point and default arguments.
    pub command: Vec<String>,
    /// Its environment, each `NAME=value`.
    pub env: Vec<String>,
}

impl Image {
    /// The root of a container of this image.
    pub fn root(&self) -> RootKind {
        RootKind::Image {
            rootfs: self.rootfs.clone(),
        }
    }
}

/// The images of this machine.
#[derive(Clone)]
pub struct Images {
    root: PathBuf,
    client: Client,
    /// For registries on this machine's loopback that speak no TLS.
    on_loopback: Client,
    limits: unpack::Limits,
    /// The pulls under way, by name: each lives as long as somebody waits for it.
    pulls: Arc<Mutex<HashMap<String, WeakShared<Pull>>>>,
}

type Pull = BoxFuture<'static, Result<Image, Arc<Error>>>;

impl Images {
    /// Images in the folder `root`, cleared of what an earlier run left half done. Registries are spoken to by TLS, and
    /// without it on this machine's loopback, where one speaks none.
    pub fn new(root: PathBuf) -> Self {
        let config = |protocol| ClientConfig {
            protocol,
            user_agent: concat!("carrel/", env!("CARGO_PKG_VERSION")),
            connect_timeout: Some(CONNECT_WITHIN),
            read_timeout: Some(SILENT_AT_MOST),
            ..ClientConfig::default()
        };
        let entries = fs::read_dir(&root)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        for left in entries.filter(|e| {
            e.file_name()
                .as_encoded_bytes()
                .starts_with(ASIDE.as_bytes())
        }) {
            // In the way of nothing, should it stay.
            let _ = fs::remove_dir_all(left.path());
        }
        let limits = unpack::Limits {
            bytes: 32 << 30,
            entries: 2_000_000,
        };
        Self {
            root,
            client: Client::new(config(ClientProtocol::Https)),
            on_loopback: Client::new(config(ClientProtocol::Http)),
            limits,
            pulls: Arc::default(),
        }
    }

    /// The image of this name: the one that was pulled before, else pulled now, once for all who want it at a time; they
    /// share what comes of it, the error too.
    ///
    /// # Cancel safety
    /// Safe: with the last who waits, the pull ends; what is half there is removed, and the next who wants it pulls it.
    pub async fn get(&self, name: &str) -> Result<Image, Arc<Error>> {
        match self.present(name)? {
            Some(image) => Ok(image),
            None => self.pulling(name).await,
        }
    }

    /// The pull of this name that is under way, else a new one.
    fn pulling(&self, name: &str) -> Shared<Pull> {
        // Let go after the lock: who waited may have gone meanwhile, and with the last handle a pull ends and is cleared up.
        let mut seen = Vec::new();
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| {
            let Some(pull) = pull.upgrade() else {
                return false;
            };
            // What came of those that have ended is not for who comes later.
            let goes_on = pull.peek().is_none();
            seen.push(pull);
            goes_on
        });
        if let Some(pull) = pulls.get(name).and_then(WeakShared::upgrade) {
            return pull;
        }
        let (images, wanted) = (self.clone(), name.to_owned());
        let pull = async move {
            // One that was under way may have ended since we looked.
            match images.present(&wanted)? {
                Some(image) => Ok(image),
                None => Ok(images.pull(&wanted).await?),
            }
        };
        let pull = pull.boxed().shared();
        pulls.extend(pull.downgrade().map(|pull| (name.to_owned(), pull)));
        pull
    }

    /// The image of this name if it was pulled before; touches no network.
    pub fn present(&self, name: &str) -> Result<Option<Image>, Error> {
        let digest = match parse(name)?.digest() {
            Some(digest) => digest.to_owned(),
            None => match fs::read_to_string(self.name_file(name)) {
                Ok(digest) => digest,
                Err(_) => return Ok(None),
            },
        };
        Ok(self.unpacked(&digest))
    }

    /// Asks the registry what the name means now, and fetches that unless it is here.
    pub async fn pull(&self, name: &str) -> Result<Image, Error> {
        let reference = parse(name)?;
        let refused = |source| Error::Pull {
            name: name.to_owned(),
            source: Box::new(source),
        };
        let mut client = &self.client;
        let mut asked = ask(client, &reference).await;
        if is_on_loopback(reference.registry()) && asked.as_ref().is_err_and(speaks_no_tls) {
            client = &self.on_loopback;
            asked = ask(client, &reference).await;
        }
        let (manifest, digest) = asked.map_err(refused)?;
        let image = match self.unpacked(&digest) {
            Some(image) => image,
            None => Box::pin(self.fetch(client, name, &reference, &manifest, digest)).await?,
        };
        let file = self.name_file(name);
        file.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&file, &image.digest))
            .map_err(|source| disk("remembering the name of an image", &file, source))?;
        Ok(image)
    }

    async fn fetch(
        &self,
        client: &Client,
        name: &str,
        reference: &Reference,
        manifest: &OciImageManifest,
        digest: String,
    ) -> Result<Image, Error> {
        fs::create_dir_all(&self.root)
            .map_err(|source| disk("making the folder of images", &self.root, source))?;
        let mut aside = tempfile::Builder::new()
            .prefix(ASIDE)
            .tempdir_in(&self.root)
            .map_err(|source| disk("making a folder in", &self.root, source))?;
        let mut config = Vec::new();
        client
            .pull_blob(reference, &manifest.config, &mut config)
            .await
            .map_err(|source| Error::Pull {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
        let config: ConfigFile =
            serde_json::from_slice(&config).map_err(|source| Error::Configuration {
                name: name.to_owned(),
                source,
            })?;
        let config = config.config.unwrap_or_default();
        let rootfs = aside.path().join("rootfs");
        let mut left = self.limits;
        for layer in &manifest.layers {
            let file = download(client, name, reference, layer, aside.path()).await?;
            let rootfs = rootfs.clone();
            // The folder is the unpacking's meanwhile: who stops waiting does not remove it under its hands.
            let unpack = move |stop: &CancellationToken| {
                unpack::unpack_layer(&file, &rootfs, left, stop).map(|left| (left, aside))
            };
            (left, aside) = while_waited_for(unpack)
                .await
                .map_err(|_| Error::Layer("interrupted".into()))??;
        }
        unpack::add_mount_points(&rootfs)?;
        let folder = self.folder(&digest);
        let mut command = config.entrypoint.unwrap_or_default();
        command.extend(config.cmd.unwrap_or_default());
        let env = config.env.unwrap_or_default();
        let image = Image {
            digest,
            rootfs: folder.join("rootfs"),
            command,
            env,
        };
        let text = serde_json::to_vec(&image).map_err(io::Error::other);
        text.and_then(|text| fs::write(aside.path().join("image.json"), text))
            .map_err(|source| disk("describing the image in", aside.path(), source))?;
        // Somebody else may have finished the same image meanwhile: then theirs is as good.
        match fs::rename(aside.path(), &folder) {
            Err(source) if self.unpacked(&image.digest).is_none() => {
                return Err(disk("finishing", &folder, source));
            }
            _ => {}
        }
        Ok(image)
    }

    fn unpacked(&self, digest: &str) -> Option<Image> {
        let text = fs::read(self.folder(digest).join("image.json")).ok()?;
        serde_json::from_slice(&text)
            .ok()
            .filter(|image: &Image| image.digest == digest)
    }

    fn folder(&self, digest: &str) -> PathBuf {
        let name = |byte: char| {
            if byte.is_ascii_alphanumeric() {
                byte
            } else {
                '-'
            }
        };
        self.root.join(digest.chars().map(name).collect::<String>())
    }

    fn name_file(&self, name: &str) -> PathBuf {
        self.root
            .join("names")
            .join(hex::encode(Sha256::digest(name.as_bytes())))
    }
}

/// What an image's name means now: its manifest, and the digest of that.
async fn ask(
    client: &Client,
    reference: &Reference,
) -> Result<(OciImageManifest, String), OciDistributionError> {
    client
        .pull_image_manifest(reference, &RegistryAuth::Anonymous)
        .await
}

async fn download(
    client: &Client,
    name: &str,
    reference: &Reference,
    layer: &OciDescriptor,
    folder: &Path,
) -> Result<fs::File, Error> {
    let file =
        tempfile::tempfile_in(folder).map_err(|source| disk("making a file in", folder, source))?;
    let copy = file
        .try_clone()
        .map_err(|source| disk("opening a file in", folder, source))?;
    client
        .pull_blob(reference, layer, tokio::fs::File::from_std(copy))
        .await
        .map_err(|source| Error::Pull {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
    Ok(file)
}

/// Does on a thread of its own what takes long; it is told to stop when nobody waits for it any more.
async fn while_waited_for<T: Send + 'static>(
    work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    tokio::task::spawn_blocking(move || work(&stop)).await
}

/// The part of an image's configuration that matters to a container (OCI image specification, config.md).
#[derive(Debug, Deserialize)]
struct ConfigFile {
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
}

fn parse(name: &str) -> Result<Reference, Error> {
    name.parse().map_err(|source| Error::Name {
        name: name.to_owned(),
        source,
    })
}

fn disk(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::Disk {
        doing: format!("{doing} {}", path.display()),
        source,
    }
}
