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
    a_pull_that_nobody_waits_for_leaves_nothing,
];

/// What the registry has, by digest and by tag; each kept with its media type.
#[derive(Default)]
struct Registry {
    blobs: HashMap<String, (&'static str, Vec<u8>)>,
    asked: Vec<String>,
    /// The answer to this one does not come.
    held: Option<String>,
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

    /// An image with a layer for each of these files, under the tag `one`; the layers' digests.
    fn add_image(&mut self, files: &[&str]) -> Vec<String> {
        let layers: Vec<_> = files
            .iter()
            .map(|file| {
                let mut layer = tar::Builder::new(Vec::new());
                let mut header = tar::Header::new_gnu();
                header.set_size(6);
                header.set_mode(0o644);
                layer
                    .append_data(&mut header, file, &b"square"[..])
                    .unwrap();
                self.add(LAYER, layer.into_inner().unwrap())
            })
            .collect();
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Entrypoint":["/tutor"],"Cmd":["--quiet"],"Env":["LESSON=3"]}}"#;
        let (config, config_size) = self.add(CONFIG, config.into());
        let described = layers.iter().map(|(digest, size)| {
            serde_json::json!({"mediaType": LAYER, "digest": digest, "size": size})
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
            "layers": described.collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let (digest, _) = self.add(MANIFEST, manifest);
        let manifest = self.blobs[&digest].clone();
        self.blobs.insert("one".into(), manifest);
        layers.into_iter().map(|(digest, _)| digest).collect()
    }
}

type Shared = Arc<Mutex<Registry>>;

async fn answer(
    State(registry): State<Shared>,
    Path((_, name)): Path<(String, String)>,
) -> Result<([(HeaderName, HeaderValue); 1], Vec<u8>), StatusCode> {
    let is_held = {
        let mut registry = registry.lock().unwrap();
        registry.asked.push(name.clone());
        registry.held.as_ref() == Some(&name)
    };
    if is_held {
        std::future::pending::<()>().await;
    }
    let registry = registry.lock().unwrap();
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

async fn an_image_without_any_library_is_pulled_and_run(bed: Bed) -> Outcome {
    let registry = Shared::default();
    let layer = registry
        .lock()
        .unwrap()
        .add_image(&["lesson.txt"])
        .remove(0);
    let address = serve(Arc::clone(&registry)).await;
    let name = format!("{address}/school:one");
    let images = Images::new(bed.folder.path().join("images"));
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
    let layer = registry
        .lock()
        .unwrap()
        .add_image(&["lesson.txt"])
        .remove(0);
    registry
        .lock()
        .unwrap()
        .blobs
        .insert(layer, (LAYER, vec![0; 2048]));
    let address = serve(Arc::clone(&registry)).await;
    let images = Images::new(bed.folder.path().join("images"));
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

async fn a_pull_that_nobody_waits_for_leaves_nothing(bed: Bed) -> Outcome {
    let registry = Shared::default();
    let layers = registry
        .lock()
        .unwrap()
        .add_image(&["lesson.txt", "homework.txt"]);
    registry.lock().unwrap().held = Some(layers[1].clone());
    let address = serve(Arc::clone(&registry)).await;
    let folder = bed.folder.path().join("images");
    let images = Images::new(folder.clone());
    let left = || -> Vec<_> {
        let entries = std::fs::read_dir(&folder).unwrap().map(Result::unwrap);
        entries.map(|entry| entry.path()).collect()
    };
    let name = format!("{address}/school:one");
    let half_way = async {
        until("it wants the second layer", || async {
            registry.lock().unwrap().asked.contains(&layers[1])
        })
        .await;
        assert!(left()[0].join("rootfs/lesson.txt").exists());
    };
    tokio::select! {
        pulled = images.get(&name) => unreachable!("it was not held: {pulled:?}"),
        () = half_way => {}
    }
    assert!(left().is_empty(), "{:?}", left());
    Outcome::Passed
}
