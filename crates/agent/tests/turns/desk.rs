//! A tutor that runs on a fresh workspace, and a caller that sends it turns.

use std::path::PathBuf;
use std::time::Duration;

use carrel_agent::Options;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::script::{Model, Scene};

pub(crate) struct Desk {
    pub(crate) model: Model,
    folder: tempfile::TempDir,
    url: String,
    cancel: CancellationToken,
    server: JoinHandle<Result<(), carrel_agent::Error>>,
}

impl Desk {
    pub(crate) async fn with(scenes: Vec<Scene>) -> Self {
        Self::remembering(scenes, carrel_agent::HISTORY_TOKENS).await
    }

    pub(crate) async fn remembering(scenes: Vec<Scene>, history_tokens: usize) -> Self {
        let model = Model::playing(scenes).await;
        let model_url = model.url.clone();
        Self::start(model, model_url, history_tokens).await
    }

    /// A tutor whose model is elsewhere.
    pub(crate) async fn asking(model_url: &str) -> Self {
        let unasked = Model::playing(vec![]).await;
        Self::start(unasked, model_url.to_owned(), carrel_agent::HISTORY_TOKENS).await
    }

    async fn start(model: Model, model_url: String, history_tokens: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = Options {
            workspace: folder.path().to_owned(),
            port: 0,
            model_url,
            model_token: "carrel".into(),
            history_tokens,
        };
        let cancel = CancellationToken::new();
        let server = tokio::task::spawn(carrel_agent::serve(listener, options, cancel.clone()));
        Self {
            model,
            folder,
            url,
            cancel,
            server,
        }
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    pub(crate) fn transcript(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.path(".tutor/transcript.jsonl")).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends a plain message and reads the answer to its end.
    pub(crate) async fn turn(&self, number: u8, text: &str) -> Vec<Value> {
        self.turn_with(number, text, json!({})).await
    }

    /// The same, with more in the message.
    pub(crate) async fn turn_with(&self, number: u8, text: &str, more: Value) -> Vec<Value> {
        let body = self.begin(number, text, more).await;
        let bytes = body.bytes().await.unwrap();
        let lines = std::str::from_utf8(&bytes).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends a message; the answer is there to be read, or to be left.
    pub(crate) async fn begin(&self, number: u8, text: &str, more: Value) -> reqwest::Response {
        let mut request = json!({
            "turn_id": format!("00000000-0000-7000-8000-0000000000{number:02}"),
            "message": {
                "message_id": format!("00000000-0000-7000-8000-0000000001{number:02}"),
                "text": text,
                "attachments": more.get("attachments").cloned().unwrap_or(json!([])),
                "sent_time": "2026-11-20T08:30:00Z",
            },
        });
        if let Some(context) = more.get("context") {
            request["context"] = context.clone();
        }
        let response = reqwest::Client::new()
            .post(format!("{}/v1/turn", self.url))
            .timeout(Duration::from_secs(20))
            .json(&request)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        response
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let response = reqwest::get(format!("{}/healthz", self.url)).await.unwrap();
        response.status() == 200
    }

    /// Ends the server and waits for it, and with it for the turn that was running.
    pub(crate) async fn end(&mut self) {
        self.cancel.cancel();
        (&mut self.server).await.unwrap().unwrap();
    }
}

/// All text of an answer.
pub(crate) fn text(lines: &[Value]) -> String {
    let texts = lines.iter().filter(|line| line["type"] == "text");
    texts.map(|line| line["text"].as_str().unwrap()).collect()
}

/// The first line of an answer that is still going on.
pub(crate) async fn first_line(answer: reqwest::Response) -> (Value, impl futures::Stream) {
    let mut pieces = answer.bytes_stream();
    let first = pieces.next().await.unwrap().unwrap();
    (serde_json::from_slice(&first).unwrap(), pieces)
}
