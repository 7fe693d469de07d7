//! Container images of a few files, as archives that a node imports (OCI image layout).

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What OCI's media types begin with.
const MEDIA: &str = "application/vnd.oci.image";

/// Writes an image of this name (`localhost/test/it:1`) to a file: programs of this machine, each by its path in the image; the first
/// is what it runs.
///
/// # Errors
/// When a program cannot be read or the file cannot be written.
pub fn write(to: &Path, name: &str, programs: &[(&str, &Path)]) -> anyhow::Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, program) in programs {
        layer.append_path_with_name(program, path.trim_start_matches('/'))?;
    }
    let mut archive = Archive(tar::Builder::new(Vec::new()));
    let layer = archive.blob("layer.v1.tar", &layer.into_inner()?)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": programs.first().map(|(path, _)| [path])},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = archive.blob("config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{MEDIA}.manifest.v1+json"),
        "config": config,
        "layers": [layer],
    });
    let mut manifest = archive.blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    archive.file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)?;
    archive.file("index.json", index.to_string().as_bytes())?;
    Ok(std::fs::File::create(to)?.write_all(&archive.0.into_inner()?)?)
}

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn file(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len().try_into()?);
        header.set_mode(0o644);
        Ok(self.0.append_data(&mut header, path, content)?)
    }

    /// Adds content by its hash: its descriptor.
    fn blob(&mut self, kind: &str, content: &[u8]) -> anyhow::Result<Value> {
        let hash = hex::encode(Sha256::digest(content));
        self.file(&format!("blobs/sha256/{hash}"), content)?;
        Ok(json!({
            "mediaType": format!("{MEDIA}.{kind}"),
            "digest": format!("sha256:{hash}"),
            "size": content.len(),
        }))
    }
}
