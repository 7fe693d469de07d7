//! HTTP as bytes: what a well-made client would never send.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server answers by then, or never.
const PATIENCE: Duration = Duration::from_secs(45);

/// What came back.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {:?} {}",
            self.status,
            self.headers,
            String::from_utf8_lossy(&self.body)
        )
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A server that is sent bytes.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    authority: String,
    token: String,
}

impl Raw {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        let authority = url.trim_start_matches("http://").to_owned();
        Self {
            authority,
            token: token.to_owned(),
        }
    }

    /// The same server, asked with another token.
    pub(crate) fn with(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(&self.authority).await?)
    }

    /// The head of a request, with more lines.
    pub(crate) fn head(&self, line: &str, more: &str) -> String {
        let Self { authority, token } = self;
        format!(
            "{line} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{more}\r\n"
        )
    }

    /// A request without a body.
    pub(crate) async fn ask(&self, line: &str) -> anyhow::Result<Answer> {
        self.send(self.head(line, "").as_bytes()).await
    }

    /// A request with a body of JSON, or what claims to be it.
    pub(crate) async fn json(&self, line: &str, more: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let length = body.len();
        let more = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{more}");
        self.send(&[self.head(line, &more).as_bytes(), body].concat())
            .await
    }

    /// A message with a key of its own.
    pub(crate) async fn message(&self, learner: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let line = format!("POST /v1/learners/{learner}/messages");
        let key = uuid::Uuid::new_v4();
        self.json(&line, &format!("Idempotency-Key: {key}\r\n"), body)
            .await
    }

    /// Any bytes.
    pub(crate) async fn send(&self, bytes: &[u8]) -> anyhow::Result<Answer> {
        let mut stream = self.connect().await?;
        // It may answer, and close, before it has read everything.
        let _ = stream.write_all(bytes).await;
        read(&mut stream).await
    }
}

/// Reads an answer until the connection closes.
pub(crate) async fn read(stream: &mut TcpStream) -> anyhow::Result<Answer> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .context("no end came")?;
    let shown = || String::from_utf8_lossy(&bytes).into_owned();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.with_context(|| format!("no answer but '{}' ({read:?})", shown()))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok(Answer {
        status: status.with_context(shown)?,
        headers,
        body: bytes[end + 4..].to_vec(),
    })
}
