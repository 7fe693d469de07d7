//! An agent of the adapter `Http` that does what its message says.

use std::convert::Infallible;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use axum::body::{Body, Bytes};
use axum::extract::WebSocketUpgrade;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn environment(name: &str) -> String {
    std::env::vars()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value)
        .unwrap_or_default()
}

async fn serve() -> std::io::Result<()> {
    if fs::exists("never-ready")? {
        return std::future::pending().await;
    }
    let port = environment("CARREL_AGENT_PORT").parse().unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/turn", post(turn))
        .route("/echo/{*rest}", any(echo))
        .route("/socket", any(socket));
    axum::serve(listener, app).await
}

async fn echo(headers: HeaderMap, request: axum::extract::Request) -> Json<Value> {
    let uri = request.uri().to_string();
    let authorised = headers.contains_key("authorization");
    let body = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap_or_default();
    fs::write("touched", &body).unwrap_or_default();
    Json(json!({"uri": uri, "authorised": authorised, "body": String::from_utf8_lossy(&body)}))
}

async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

type Lines = std::pin::Pin<Box<dyn Stream<Item = Value> + Send>>;

async fn turn(Json(order): Json<Value>) -> Body {
    let text = order["message"]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let lines: Lines = match word {
        "count" => say(&count()),
        "read" => say(&fs::read_to_string(rest).unwrap_or_else(|error| error.to_string())),
        "attached" => say(&order["message"]["attachments"].to_string()),
        "environment" => say(&environment(rest)),
        "sh" => say(&shell(rest)),
        "file" => lines([
            json!({"type": "file", "name": "r.txt", "media_type": "text/plain", "path": rest}),
        ]),
        "model" => say(&model(rest).await),
        "connect" => say(&connect(rest).await),
        "write-then-fail" => {
            fs::write("failed-turn", "x").unwrap_or_default();
            Box::pin(stream::iter([
                json!({"type": "error", "code": "tired", "message": "no more", "retryable": false}),
            ]))
        }
        "break-off" => Box::pin(stream::iter([json!({"type": "text", "text": "half"})])),
        "nonsense" => Box::pin(stream::iter([json!("nonsense")])),
        "kill-me" => {
            let pid = std::process::id().to_string();
            shell(&format!("kill -9 {pid}"));
            Box::pin(stream::pending())
        }
        "exit" => {
            let pid = std::process::id().to_string();
            shell(&format!("kill -15 {pid}"));
            Box::pin(stream::pending())
        }
        "flood" => Box::pin(stream::repeat_with(
            || json!({"type": "text", "text": "x".repeat(65_536)}),
        )),
        "much" => {
            let line = json!({"type": "text", "text": "x".repeat(65_536)});
            lines(std::array::from_fn::<_, 63, _>(|_| line.clone()))
        }
        "long-line" => say(&"y".repeat(3 << 20)),
        "begin" => Box::pin(
            stream::iter([json!({"type": "text", "text": "begun"})]).chain(stream::pending()),
        ),
        _ => say(&format!("you said: {text}")),
    };
    let bytes = lines.map(|line| {
        let mut line = line.to_string();
        line.push('\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    Body::from_stream(bytes)
}

fn say(text: &str) -> Lines {
    lines([
        json!({"type": "status", "text": "thinking"}),
        json!({"type": "tool", "id": "t1", "name": "look", "status": "done", "summary": "looked"}),
        json!({"type": "text", "text": text}),
    ])
}

fn lines<const N: usize>(lines: [Value; N]) -> Lines {
    Box::pin(stream::iter(lines).chain(stream::iter([json!({"type": "done"})])))
}

fn count() -> String {
    let before = fs::read_to_string("count")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let after = before + 1;
    fs::write("count", after.to_string()).unwrap_or_default();
    after.to_string()
}

/// Runs a shell; what it leaves running in the background stays.
fn shell(script: &str) -> String {
    let done = Command::new("/bin/sh")
        .args(["-c", script])
        .stderr(Stdio::null())
        .output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
        .unwrap_or_default()
}

async fn model(path: &str) -> String {
    let base = environment("ANTHROPIC_BASE_URL");
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map(|client| client.post(format!("{base}{path}")))
        .map(|request| {
            request
                .header("x-api-key", environment("ANTHROPIC_AUTH_TOKEN"))
                .body("{}")
        });
    match answer {
        Ok(request) => match request.send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

/// The first line of the egress proxy's answer to `CONNECT`.
async fn connect(target: &str) -> String {
    let proxy = environment("HTTPS_PROXY").replace("http://", "");
    let talk = async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream
            .write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes())
            .await?;
        let mut bytes = vec![0; 4096];
        let length = stream.read(&mut bytes).await?;
        let mut answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if answer.starts_with("HTTP/1.1 200") {
            stream.write_all(b"hello\n").await?;
            let length = stream.read(&mut bytes).await?;
            answer.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        Ok::<_, std::io::Error>(answer)
    };
    talk.await.unwrap_or_else(|error| error.to_string())
}
