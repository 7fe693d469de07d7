//! A registry on loopback that has one image (OCI distribution and image specifications, as much as a pull needs).

use std::collections::HashMap;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What it gives, by digest or tag: media type and bytes.
type Blobs = HashMap<String, (&'static str, Vec<u8>)>;

/// A file of an image: its absolute path, and its content. All are executable.
pub type File = (String, Vec<u8>);

/// Serves an image of these files, with this `config` of its configuration (`Entrypoint`, `Env` …), as long as the runtime
/// lives: its name.
///
/// # Errors
/// When no port is free, or a path is none.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's task ends with its runtime"
)]
pub async fn serve(files: &[File], config: &Value) -> io::Result<String> {
    let mut blobs = Blobs::new();
    let layer = add(&mut blobs, LAYER, layer(files)?);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = add(&mut blobs, CONFIG, config.to_string().into());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
    });
    let manifest: Vec<u8> = manifest.to_string().into();
    add(&mut blobs, MANIFEST, manifest.clone());
    blobs.insert("one".to_owned(), (MANIFEST, manifest));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let name = format!("{}/school:one", listener.local_addr()?);
    let app = Router::new()
        .route("/v2/", get(|| async { StatusCode::OK }))
        .route("/v2/school/{kind}/{name}", get(answer))
        .with_state(Arc::new(blobs));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(name)
}

async fn answer(
    State(blobs): State<Arc<Blobs>>,
    Path((_, name)): Path<(String, String)>,
) -> Result<([(HeaderName, HeaderValue); 1], Vec<u8>), StatusCode> {
    let (kind, bytes) = blobs.get(&name).ok_or(StatusCode::NOT_FOUND)?;
    let kind = HeaderValue::from_static(kind);
    Ok(([(header::CONTENT_TYPE, kind)], bytes.clone()))
}

/// Adds bytes under their digest: their description.
fn add(blobs: &mut Blobs, kind: &'static str, bytes: Vec<u8>) -> Value {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    let description = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
    blobs.insert(digest, (kind, bytes));
    description
}

fn layer(files: &[File]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let path = FilePath::new(path.trim_start_matches('/'));
        let mut folders: Vec<_> = path.ancestors().skip(1).collect();
        folders.retain(|folder| *folder != FilePath::new(""));
        for folder in folders.into_iter().rev() {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o755);
            layer.append_data(&mut header, folder, io::empty())?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        layer.append_data(&mut header, path, content.as_slice())?;
    }
    layer.into_inner()
}
