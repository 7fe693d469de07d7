//! The container image as `cargo xtask image` writes it, whose archive `CARREL_IMAGE` names: unpacked into an empty root, where
//! there is no library, no user, no shell and nothing that may be written to, its executable does what it must.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const USER: u32 = 10001;

/// The archive's files; `None`, and the test is skipped, when there is no archive.
fn archive(test: &str) -> anyhow::Result<Option<BTreeMap<String, Vec<u8>>>> {
    let Some(path) = std::env::var_os("CARREL_IMAGE").filter(|path| !path.is_empty()) else {
        carrel_tests::skip(test, "image", "CARREL_IMAGE names no archive")?;
        return Ok(None);
    };
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(entry.path()?.display().to_string(), bytes);
    }
    Ok(Some(files))
}

/// What a descriptor names, if its hash is right.
fn named<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> anyhow::Result<&'a [u8]> {
    let digest = descriptor["digest"]
        .as_str()
        .context("a descriptor names a digest")?;
    let bytes = files
        .get(&format!("blobs/{}", digest.replace(':', "/")))
        .context("a named blob is there")?;
    ensure!(
        digest == format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
        "{digest} has other content"
    );
    Ok(bytes)
}

/// Unpacks all layers; what the image is configured to be.
fn unpack(files: &BTreeMap<String, Vec<u8>>, root: &Path) -> anyhow::Result<Value> {
    let index: Value = serde_json::from_slice(&files["index.json"])?;
    let manifest: Value = serde_json::from_slice(named(files, &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(named(files, &manifest["config"])?)?;
    let layers = manifest["layers"].as_array().context("it has layers")?;
    for (layer, hash) in layers.iter().zip(
        config["rootfs"]["diff_ids"]
            .as_array()
            .context("with hashes")?,
    ) {
        assert_eq!(
            &layer["digest"], hash,
            "a layer that is not compressed has one hash"
        );
        tar::Archive::new(named(files, layer)?).unpack(root)?;
    }
    Ok(config["config"].clone())
}

#[test]
fn the_image_runs_in_an_empty_root_as_a_user_without_a_name() -> anyhow::Result<()> {
    const TEST: &str = "the_image_runs_in_an_empty_root_as_a_user_without_a_name";
    let Some(files) = archive(TEST)? else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        return carrel_tests::skip(TEST, "image", "only root changes its root");
    }
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let config = unpack(&files, root)?;
    assert_eq!(config["Entrypoint"], json!(["/carrel"]));
    assert_eq!(config["User"], json!(format!("{USER}:{USER}")));
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))?;
    let found: Vec<_> = std::fs::read_dir(root)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(found.len(), 2, "an executable and certificates: {found:?}");

    let carrel = |words: &[&str]| -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new("chroot");
        command
            .arg(format!("--userspec={USER}:{USER}"))
            .arg(root)
            .arg("/carrel")
            .args(words);
        let ended = command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()?;
        let said = [ended.stdout, ended.stderr].concat();
        Ok((ended.status.code(), String::from_utf8(said)?))
    };
    let version = concat!("carrel ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(carrel(&["version"])?, (Some(0), version.to_owned()));

    // What an orchestrator brings: names, and a mounted Secret.
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 gateway.school.svc\n")?;
    let token = root.join("token");
    std::fs::write(&token, "secret")?;
    chown(&token, Some(0), Some(USER))?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o440))?;
    for (server, told) in [
        ("http://gateway.school.svc:1", "Connection refused"),
        ("https://gateway.school.svc:1", "Connection refused"),
        ("http://vault.school.svc:1", "failed to lookup address"),
    ] {
        let words = [
            "--server",
            server,
            "--token-file",
            "/token",
            "learner",
            "ls",
        ];
        let (status, said) = carrel(&words)?;
        ensure!(
            status == Some(1) && said.contains(told),
            "{server}: {status:?} {said}"
        );
    }
    // A role gets as far as its settings, on a folder that it is given.
    let data = root.join("data");
    std::fs::create_dir(&data)?;
    chown(&data, Some(USER), Some(USER))?;
    let (status, said) = carrel(&["vault", "--data-dir", "/data"])?;
    ensure!(
        status == Some(2) && said.contains("store.url"),
        "{status:?} {said}"
    );
    let (status, said) = carrel(&["keys", "create", "--out", "/keys"])?;
    ensure!(
        status == Some(1) && said.contains("making /keys"),
        "the root is root's: {status:?} {said}"
    );
    Ok(())
}
