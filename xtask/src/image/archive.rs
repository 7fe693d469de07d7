//! An image as one archive: the OCI image layout (image-spec 1.1), with the `manifest.json` that `docker load` reads besides.
//! Pure: what is in it is an argument, and equal arguments give equal bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What an image has.
pub(super) struct Image<'a> {
    /// Its whole name, `registry/name:tag`.
    pub(super) reference: &'a str,
    pub(super) version: &'a str,
    pub(super) user: &'a str,
    pub(super) entrypoint: &'a str,
    /// Files, layer over layer.
    pub(super) layers: Vec<Vec<File>>,
}

/// A file of root's.
pub(super) struct File {
    /// Without a slash before it.
    path: &'static str,
    mode: u32,
    bytes: Vec<u8>,
}

impl File {
    /// One that everybody may read.
    pub(super) fn text(path: &'static str, bytes: Vec<u8>) -> Self {
        let mode = 0o644;
        Self { path, mode, bytes }
    }

    /// One that everybody may run.
    pub(super) fn program(path: &'static str, bytes: Vec<u8>) -> Self {
        let mode = 0o755;
        Self { path, mode, bytes }
    }
}

/// Something that is named by the hash of its content.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let mut digest = String::new();
        for byte in Sha256::digest(&bytes) {
            // Writing to a string does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Self { digest, bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn place(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

/// The archive's bytes.
pub(super) fn write(image: &Image<'_>) -> anyhow::Result<Vec<u8>> {
    let layers: Vec<Blob> = image
        .layers
        .iter()
        .map(|files| layer(files).map(Blob::new))
        .collect::<anyhow::Result<_>>()?;
    let config = Blob::json(&config(image, &layers)?);
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": layers.iter().map(|blob| blob.descriptor("layer.v1.tar")).collect::<Vec<_>>(),
    }));
    let mut named = manifest.descriptor("manifest.v1+json");
    named["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.reference,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    });
    let for_docker = json!([{
        "Config": config.place(),
        "RepoTags": [image.reference],
        "Layers": layers.iter().map(Blob::place).collect::<Vec<_>>(),
    }]);

    let mut archive = Builder::new(Vec::new());
    let version = json!({"imageLayoutVersion": "1.0.0"}).to_string();
    put(&mut archive, "oci-layout", 0o644, version.as_bytes())?;
    put(
        &mut archive,
        "index.json",
        0o644,
        index.to_string().as_bytes(),
    )?;
    put(
        &mut archive,
        "manifest.json",
        0o644,
        for_docker.to_string().as_bytes(),
    )?;
    for blob in layers.iter().chain([&config, &manifest]) {
        put(&mut archive, &blob.place(), 0o644, &blob.bytes)?;
    }
    archive.into_inner().context("ending the archive")
}

fn config(image: &Image<'_>, layers: &[Blob]) -> anyhow::Result<Value> {
    // The names that Go gives to processors are those of images.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => anyhow::bail!("images for processors of kind '{other}' are not made"),
    };
    let hashes = layers
        .iter()
        .map(|layer| format!("sha256:{}", layer.digest));
    Ok(json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": [image.entrypoint],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "carrel",
                "org.opencontainers.image.version": image.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": hashes.collect::<Vec<_>>()},
    }))
}

/// A layer, not compressed: its hash is that of what is unpacked.
fn layer(files: &[File]) -> anyhow::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let above = files
        .iter()
        .flat_map(|file| Path::new(file.path).ancestors().skip(1));
    let folders: BTreeSet<&Path> = above.filter(|path| !path.as_os_str().is_empty()).collect();
    for folder in folders {
        let mut header = header(EntryType::Directory, 0o755, 0);
        let name = format!("{}/", folder.display());
        archive
            .append_data(&mut header, name, std::io::empty())
            .context("writing a folder of a layer")?;
    }
    for file in files {
        put(&mut archive, file.path, file.mode, &file.bytes)?;
    }
    archive.into_inner().context("ending a layer")
}

fn put(archive: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("writing {path}"))
}

/// Root's, of no time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests;
