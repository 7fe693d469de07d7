//! An image from a registry on loopback to a running container.

use carrel_testkit::until;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use carrel_fleet_local::container::ContainerSpec;
use carrel_fleet_local::image::Images;
use sha2::{Digest, Sha256};

use crate::fixture::{Bed, Outcome, ended, value};

crate::tests![
    an_image_without_any_library_is_pulled_and_run,
    a_registry_that_lies_about_a_layer_is_refused,
    a_pull_that_nobody_waits_for_stops_unpacking_and_leaves_nothing,
];

/// What the registry has, by digest and by tag; each kept with its media type.
#[derive(Default)]
struct Registry {
    blobs: HashMap<String, (&'static str, Vec<u8>)>,
    asked: Vec<String>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Registry {
    fn add(&mut self, kind: &'static str, bytes: Vec<u8>) -> (String, usize) {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let size = bytes.len();
        self.blobs.insert(digest.clone(), (kind, bytes));
        (digest, size)
    }

    /// An image of these files, under the tag `one`; its layer's digest.
    fn add_image(&mut self, files: impl Iterator<Item = String>) -> String {
        let mut layer = tar::Builder::new(Vec::new());
        for file in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(6);
            header.set_mode(0o644);
            layer
                .append_data(&mut header, file, &b"square"[..])
                .unwrap();
        }
        let (layer, layer_size) = self.add(LAYER, layer.into_inner().unwrap());
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Entrypoint":["/tutor"],"Cmd":["--quiet"],"Env":["LESSON=3"]}}"#;
        let (config, config_size) = self.add(CONFIG, config.into());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
            "layers": [{"mediaType": LAYER, "digest": layer, "size": layer_size}],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let (digest, _) = self.add(MANIFEST, manifest);
        let manifest = self.blobs[&digest].clone();
        self.blobs.insert("one".into(), manifest);
        layer
    }
}

type Shared = Arc<Mutex<Registry>>;

async fn answer(
    State(registry): State<Shared>,
    Path((_, name)): Path<(String, String)>,
) -> Result<([(HeaderName, HeaderValue); 1], Vec<u8>), StatusCode> {
    let mut registry = registry.lock().unwrap();
    registry.asked.push(name.clone());
    let (kind, bytes) = registry.blobs.get(&name).ok_or(StatusCode::NOT_FOUND)?;
    Ok((
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind))],
        bytes.clone(),
    ))
}

async fn serve(registry: Shared) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new()
        .route("/v2/", axum::routing::get(|| async { StatusCode::OK }))
        .route("/v2/school/{kind}/{name}", axum::routing::get(answer))
        .with_state(registry);
    tokio::task::spawn_local(async move { axum::serve(listener, app).await });
    address
}

fn lesson() -> std::iter::Once<String> {
    std::iter::once("lesson.txt".to_owned())
}

async fn an_image_without_any_library_is_pulled_and_run(bed: Bed) -> Outcome {
    let registry = Shared::default();
    let layer = registry.lock().unwrap().add_image(lesson());
    let address = serve(Arc::clone(&registry)).await;
    let name = format!("{address}/school:one");
    let images = Images::new(bed.folder.path().join("images"), vec![address]);
    assert!(images.present(&name).unwrap().is_none());
    let (image, same) = tokio::join!(images.get(&name), images.get(&name));
    let image = image.unwrap();
    assert_eq!(same.unwrap(), image);
    let pulled = |asked: &Vec<String>| asked.iter().filter(|name| **name == layer).count();
    assert_eq!(
        pulled(&registry.lock().unwrap().asked),
        1,
        "two who want it at once pull it once"
    );
    assert_eq!(
        (image.command.join(" "), image.env.join(" ")),
        ("/tutor --quiet".into(), "LESSON=3".into())
    );
    let asked = registry.lock().unwrap().asked.len();
    assert_eq!(images.get(&name).await.unwrap(), image);
    assert_eq!(
        registry.lock().unwrap().asked.len(),
        asked,
        "the second time from disk"
    );
    assert_eq!(images.pull(&name).await.unwrap(), image);
    assert_eq!(
        registry.lock().unwrap().asked.len(),
        asked + 1,
        "only its name is asked again"
    );

    let paths = ["/lesson.txt", "/usr", "/etc/passwd", "/lib64"];
    let spec = ContainerSpec {
        root: image.root(),
        ..bed.spec(1, &[&["read"], &paths[..]].concat())
    };
    let container = bed.runtime.start(spec).await.unwrap();
    ended(&container).await;
    let said = container.last_output();
    assert_eq!(value(&said, "/lesson.txt"), "6", "the image's file");
    for path in &paths[1..] {
        assert_eq!(
            value(&said, path),
            "nothing",
            "{path} of the host is not there"
        );
    }
    container.remove().await.unwrap();

    let paths = ["/", "/lesson.txt", "/.carrel", "/dev", "/workspace", "/tmp"];
    let spec = ContainerSpec {
        root: image.root(),
        ..bed.spec(1, &[&["write"], &paths[..]].concat())
    };
    let container = bed.runtime.start(spec).await.unwrap();
    ended(&container).await;
    let said = container.last_output();
    let written: Vec<_> = paths
        .iter()
        .filter(|path| value(&said, path) == "true")
        .collect();
    assert_eq!(written, [&"/workspace", &"/tmp"]);
    container.remove().await.unwrap();
    Outcome::Passed
}

async fn a_registry_that_lies_about_a_layer_is_refused(bed: Bed) -> Outcome {
    let registry = Shared::default();
    let layer = registry.lock().unwrap().add_image(lesson());
    registry
        .lock()
        .unwrap()
        .blobs
        .insert(layer, (LAYER, vec![0; 2048]));
    let address = serve(Arc::clone(&registry)).await;
    let images = Images::new(bed.folder.path().join("images"), vec![address.clone()]);
    let tag = format!("{address}/school:one");
    assert!(images.get(&tag).await.is_err());
    assert!(images.present(&tag).unwrap().is_none());

    let wrong = format!("sha256:{}", "0".repeat(64));
    let honest = registry.lock().unwrap().blobs["one"].clone();
    registry.lock().unwrap().blobs.insert(wrong.clone(), honest);
    let by_digest = format!("{address}/school@{wrong}");
    assert!(
        images.get(&by_digest).await.is_err(),
        "a manifest that is not of its digest"
    );
    assert!(images.present(&by_digest).unwrap().is_none());
    Outcome::Passed
}

async fn a_pull_that_nobody_waits_for_stops_unpacking_and_leaves_nothing(bed: Bed) -> Outcome {
    const FILES: usize = 50_000;
    let registry = Shared::default();
    let files = (0..FILES).map(|number| format!("lesson-{number}"));
    registry.lock().unwrap().add_image(files);
    let address = serve(registry).await;
    let folder = bed.folder.path().join("images");
    let images = Images::new(folder.clone(), vec![address.clone()]);
    let asides = || std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let unpacked = || {
        let roots = asides().map(|aside| aside.path().join("rootfs"));
        roots.flat_map(std::fs::read_dir).flatten().count()
    };
    let name = format!("{address}/school:one");
    tokio::select! {
        pulled = images.get(&name) => unreachable!("it was not stopped: {pulled:?}"),
        () = until("it unpacks", || async { unpacked() > 0 }) => {}
    }
    until("it has cleared up", || async { asides().next().is_none() }).await;
    Outcome::Passed
}
