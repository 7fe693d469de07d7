//! A headless Chromium, driven over the DevTools protocol.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carrel_tests::skip;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::page::{Look, Page};

const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "about:blank",
];
/// A busy machine may take this long to answer one command.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running browser. Dropping it kills it.
pub(crate) struct Browser {
    connection: Arc<Connection>,
    // In this order: first it ends, then its folder goes.
    _child: Child,
    _profile: TempDir,
}

/// The one connection to a browser.
pub(crate) struct Connection {
    send: mpsc::UnboundedSender<String>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    /// By page: what its console would show in red.
    errors: Mutex<HashMap<String, Vec<String>>>,
}

impl Browser {
    /// Starts one; `None` when this machine has none, which is said.
    pub(crate) async fn start(test: &str) -> anyhow::Result<Option<Self>> {
        let profile = TempDir::with_prefix("carrel-browser-")?;
        for program in PROGRAMS {
            let child = Command::new(program)
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .args(FLAGS)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn();
            if let Ok(mut child) = child {
                let address = timeout(PATIENCE, address(&mut child)).await??;
                let connection = Connection::open(&address).await?;
                return Ok(Some(Self {
                    connection,
                    _child: child,
                    _profile: profile,
                }));
            }
        }
        skip(
            test,
            "chromium",
            "there is no Chromium: install the package 'chromium'",
        )?;
        Ok(None)
    }

    /// A new page, whose cookies and storage no other page has.
    pub(crate) async fn page(&self, look: Look) -> anyhow::Result<Page> {
        let context = self
            .connection
            .call("Target.createBrowserContext", json!({}), None)
            .await?;
        let target = json!({"url": "about:blank", "browserContextId": context["browserContextId"]});
        let target = self
            .connection
            .call("Target.createTarget", target, None)
            .await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self
            .connection
            .call("Target.attachToTarget", attach, None)
            .await?;
        let session = session["sessionId"]
            .as_str()
            .context("a session")?
            .to_owned();
        Page::open(Arc::clone(&self.connection), session, look).await
    }
}

/// The address that a starting browser prints.
async fn address(child: &mut Child) -> anyhow::Result<String> {
    let stderr = child.stderr.take().context("its words are ours")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = line.strip_prefix("DevTools listening on ") {
            let address = address.trim().to_owned();
            // It may go on talking.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
        said += &line;
    }
    bail!("the browser ended: {said}")
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Arc<Self>> {
        let (socket, _) = tokio_tungstenite::connect_async(address).await?;
        let (mut to, mut from) = socket.split();
        let (send, mut sent) = mpsc::unbounded_channel::<String>();
        let connection = Arc::new(Self {
            send,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            errors: Mutex::default(),
        });
        tokio::spawn(async move {
            while let Some(text) = sent.recv().await {
                if to.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
        });
        let heard = Arc::clone(&connection);
        tokio::spawn(async move {
            while let Some(Ok(message)) = from.next().await {
                if let Some(value) = message
                    .to_text()
                    .ok()
                    .and_then(|t| serde_json::from_str(t).ok())
                {
                    heard.hear(value);
                }
            }
        });
        Ok(connection)
    }

    /// One command; its result.
    pub(crate) async fn call(
        &self,
        method: &str,
        params: Value,
        session: Option<&str>,
    ) -> anyhow::Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answer);
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.send.send(command.to_string())?;
        let answer = timeout(PATIENCE, answered)
            .await
            .with_context(|| format!("no answer to {method}"))??;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        Ok(answer["result"].clone())
    }

    fn hear(&self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            let waiting = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
            if let Some(waiting) = waiting {
                // Who asked may have given up.
                let _ = waiting.send(message);
            }
            return;
        }
        let (params, session) = (&message["params"], message["sessionId"].as_str());
        let error = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                params["entry"].to_string()
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                params["args"].to_string()
            }
            _ => return,
        };
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors
            .entry(session.unwrap_or_default().to_owned())
            .or_default()
            .push(error);
    }

    pub(crate) fn take_errors(&self, session: &str) -> Vec<String> {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(session)
            .unwrap_or_default()
    }
}
