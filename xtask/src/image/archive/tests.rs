use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

fn image() -> Image<'static> {
    Image {
        reference: "localhost/carrel:7.8.9",
        version: "7.8.9",
        user: "10001:10002",
        entrypoint: "/carrel",
        layers: vec![
            vec![File::text("etc/ssl/roots.crt", b"roots".to_vec())],
            vec![File::program("carrel", b"program".to_vec())],
        ],
    }
}

fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    files.collect()
}

/// What a descriptor names, after its size and hash were looked at.
fn named(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(descriptor["size"], bytes.len());
    assert_eq!(
        digest,
        format!("sha256:{}", Blob::new(bytes.clone()).digest)
    );
    bytes.clone()
}

#[test]
fn both_ways_into_the_archive_lead_to_the_same_layers_and_configuration() {
    let files = unpacked(&write(&image()).unwrap());
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let index = read(&files["index.json"]);
    let entry = &index["manifests"][0];
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "localhost/carrel:7.8.9"
    );
    let manifest = read(&named(&files, entry));
    let config = read(&named(&files, &manifest["config"]));
    assert_eq!(config["config"]["User"], "10001:10002");
    assert_eq!(config["config"]["Entrypoint"], json!(["/carrel"]));
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.version"],
        "7.8.9"
    );
    let layers = manifest["layers"].as_array().unwrap();
    let hashes: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    assert_eq!(config["rootfs"]["diff_ids"], json!(hashes));
    let contents: Vec<_> = layers
        .iter()
        .map(|layer| unpacked(&named(&files, layer)))
        .collect();
    assert_eq!(contents[0]["etc/ssl/roots.crt"], b"roots");
    assert_eq!(
        contents[1],
        BTreeMap::from([("carrel".to_owned(), b"program".to_vec())])
    );
    assert_eq!(
        contents[0].keys().collect::<Vec<_>>(),
        ["etc/", "etc/ssl/", "etc/ssl/roots.crt"]
    );

    let docker = &read(&files["manifest.json"])[0];
    assert_eq!(docker["RepoTags"], json!(["localhost/carrel:7.8.9"]));
    let place = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(read(&files[&place(&docker["Config"])]), config);
    let theirs: Vec<_> = docker["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(place)
        .collect();
    let ours: Vec<_> = hashes
        .iter()
        .map(|hash| format!("blobs/{}", place(hash).replace(':', "/")))
        .collect();
    assert_eq!(theirs, ours);
}

#[test]
fn equal_files_give_equal_bytes_that_are_roots_and_of_no_time() {
    let bytes = write(&image()).unwrap();
    assert_eq!(bytes, write(&image()).unwrap());
    let layer = super::layer(&image().layers[1]).unwrap();
    let mut archive = tar::Archive::new(layer.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    let header = entry.header();
    assert_eq!(header.mtime().unwrap(), 0);
    assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
    assert_eq!(header.mode().unwrap(), 0o755);
}
