//! Commands that reach a server through a cluster's API server: one that stands in for it forwards to a server that runs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_tests::Up;
use carrel_tests::cluster::Operator;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::{carrel, plain};

/// The port that the gateway's pod names; only the stand-in knows that it is another here.
const PORT: u16 = 8081;

/// An API server's answers about one release.
struct Release {
    gateway: String,
    token: String,
    may_forward: bool,
    forwarded: AtomicUsize,
}

/// Starts one; a kubeconfig for it.
async fn api_server(folder: &TempDir, release: Arc<Release>) -> anyhow::Result<Operator> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new()
        .route("/api/v1/namespaces/school/pods", get(pods))
        .route("/api/v1/namespaces/school/secrets/{name}", get(secret))
        .route(
            "/api/v1/namespaces/school/pods/g-1/portforward",
            get(forward),
        )
        .with_state(release);
    TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "far", "cluster": {"server": url}}],
        "users": [{"name": "ada", "user": {}}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "ada", "namespace": "school"}}],
        "current-context": "far",
    });
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, config.to_string())?;
    Operator::with(&file)
}

async fn pods() -> axum::Json<Value> {
    let labels = json!({
        "app.kubernetes.io/part-of": "carrel", "app.kubernetes.io/instance": "blue",
        "app.kubernetes.io/component": "gateway",
    });
    let items = json!([{"key": "token", "path": "admin.token"}]);
    let secrets = json!({"sources": [{"secret": {"name": "our-keys", "items": items}}]});
    axum::Json(
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
            "metadata": {"name": "g-1", "namespace": "school", "labels": labels},
            "spec": {
                "containers": [{"name": "gateway", "ports": [{"name": "http", "containerPort": PORT}]}],
                "volumes": [{"name": "secrets", "projected": secrets}],
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }]}),
    )
}

async fn secret(State(release): State<Arc<Release>>, Path(name): Path<String>) -> Response {
    if name != "our-keys" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let data = json!({"token": STANDARD.encode(&release.token)});
    axum::Json(
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": data}),
    )
    .into_response()
}

async fn forward(State(release): State<Arc<Release>>, socket: WebSocketUpgrade) -> Response {
    if !release.may_forward {
        return StatusCode::FORBIDDEN.into_response();
    }
    release.forwarded.fetch_add(1, Ordering::Relaxed);
    socket
        .protocols(["v4.channel.k8s.io"])
        .on_upgrade(async move |socket| {
            // How one end went away the other sees.
            let _ended = carry(socket, &release.gateway).await;
        })
}

/// A port's two channels, 0 for its bytes and 1 for its errors; each begins with the port.
async fn carry(mut socket: WebSocket, gateway: &str) -> anyhow::Result<()> {
    let mut near = TcpStream::connect(gateway).await?;
    for channel in 0..2 {
        let [low, high] = PORT.to_le_bytes();
        socket
            .send(Message::Binary(vec![channel, low, high].into()))
            .await?;
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        tokio::select! {
            read = near.read(&mut buffer) => {
                let bytes = buffer.get(..read?).filter(|bytes| !bytes.is_empty());
                let Some(bytes) = bytes else { return Ok(()) };
                socket.send(Message::Binary([&[0], bytes].concat().into())).await?;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&0) => {
                    near.write_all(bytes.get(1..).unwrap_or_default()).await?;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}

/// A server, and an operator whose kubeconfig leads to it.
async fn far(
    test: &str,
    folder: &TempDir,
    may_forward: bool,
) -> anyhow::Result<(Up, Operator, Arc<Release>)> {
    let up = plain(test, json!({})).await?;
    let run: Value = serde_json::from_slice(&std::fs::read(up.data().join("run.json"))?)?;
    let gateway = run["gateway_url"].as_str().context("it has a URL")?;
    let release = Arc::new(Release {
        gateway: gateway.trim_start_matches("http://").to_owned(),
        token: std::fs::read_to_string(up.data().join("admin.token"))?,
        may_forward,
        forwarded: AtomicUsize::new(0),
    });
    let operator = api_server(folder, release.clone()).await?;
    Ok((up, operator, release))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_speak_to_a_gateway_through_the_api_server() -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("carrel-far-")?;
    let (up, operator, release) = far("a far gateway", &folder, true).await?;
    operator.carrel(&["learner", "create", "ada"], "")?.well()?;
    let list = operator
        .carrel(&["learner", "ls", "-o", "name"], "")?
        .well()?;
    assert_eq!(
        list,
        carrel(&up, &["learner", "ls", "-o", "name"], "")?.stdout
    );
    assert!(list.contains("ada"), "{list}");
    assert_eq!(
        release.forwarded.load(Ordering::Relaxed),
        2,
        "one way a command"
    );
    // The context may be named, too, and a server on this machine is not meant then.
    let words = ["--context", "far", "learner", "show", "ada", "-o", "json"];
    let shown = operator.carrel(&words, "")?.well()?;
    assert_eq!(serde_json::from_str::<Value>(&shown)?["id"], "ada");
    let usage = operator.carrel(&["usage", "-n", "school"], "")?.well()?;
    assert!(usage.contains("COST-USD"), "{usage}");
    let absent = operator.carrel(&["learner", "show", "nobody"], "")?;
    assert_eq!(absent.status, Some(4), "{absent:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_forward_is_told_so() -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("carrel-far-")?;
    let (_up, operator, _) = far("no forwarding", &folder, false).await?;
    let said = operator.carrel(&["learner", "ls"], "")?;
    assert_eq!(said.status, Some(5), "{said:?}");
    let told = "context 'far' may not get pods/portforward in namespace 'school'";
    assert!(said.stderr.contains(told), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_this_machine_comes_before_the_current_context() -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("carrel-far-")?;
    let (up, operator, release) = far("a near server", &folder, true).await?;
    let data = up.data().display().to_string();
    operator
        .carrel(&["learner", "ls", "--data-dir", &data], "")?
        .well()?;
    assert_eq!(release.forwarded.load(Ordering::Relaxed), 0);
    let both = [
        "learner",
        "ls",
        "--server",
        "http://127.0.0.1:1",
        "--context",
        "far",
    ];
    let said = operator.carrel(&both, "")?;
    assert_eq!(said.status, Some(2), "{said:?}");
    assert!(said.stderr.contains("leave one of them out"), "{said:?}");
    Ok(())
}
