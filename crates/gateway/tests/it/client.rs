//! A client: requests, problems, server-sent events.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Nothing in these tests takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Someone with a token, or nobody.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    headers: HeaderMap,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The problem's code, after checking that it is a whole problem document.
    pub(crate) fn problem(&self) -> String {
        let kind = self
            .headers
            .get("content-type")
            .map(http::HeaderValue::as_bytes);
        assert_eq!(kind, Some(&b"application/problem+json"[..]), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        let id = self.headers.get("x-request-id").expect("a request id");
        assert_eq!(problem["request_id"], id.to_str().expect("text"));
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl Client {
    pub(crate) fn new(base: &str) -> Self {
        Self {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            base: base.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    pub(crate) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers
            .insert(name, value.parse().expect("a header's value"));
        with
    }

    pub(crate) fn bearer(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Bytes) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(Full::new(body))
            .expect("a request");
        request.headers_mut().extend(self.headers.clone());
        let sent = tokio::time::timeout(PATIENCE, self.pool.request(request));
        sent.await.expect("in time").expect("an answer")
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let (parts, body) = self.send(method, path, body).await.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("in time");
        let bytes = bytes.expect("a whole body").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.whole(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.whole(Method::DELETE, path, Bytes::new()).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let json = self.with("content-type", "application/json");
        json.whole(method, path, body.to_string().into()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    /// A body as it is.
    pub(crate) async fn raw(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.whole(method, path, body.into()).await
    }

    /// Sends a request on a connection that ends with its answer, and nothing more.
    pub(crate) async fn raw_get(&self, path: &str) -> TcpStream {
        let address = self.base.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.expect("connected");
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        for (name, value) in &self.headers {
            let value = value.to_str().expect("text");
            request.extend([name.as_str(), ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        let sent = connection.write_all(request.as_bytes());
        sent.await.expect("sent");
        connection
    }

    /// A stream, from after `last` if given.
    pub(crate) async fn events(&self, path: &str, last: Option<&str>) -> Events {
        let client = match last {
            Some(last) => self.with("last-event-id", last),
            None => self.clone(),
        };
        let response = client.send(Method::GET, path, Bytes::new()).await;
        Events::new(response)
    }
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Event {
    /// Its id as two numbers.
    pub(crate) fn place(&self) -> (u64, u64) {
        let (version, step) = self.id.split_once('.').expect("two numbers");
        (
            version.parse().expect("a number"),
            step.parse().expect("a number"),
        )
    }
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    buffer: String,
}

impl Events {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        let kind = response
            .headers()
            .get("content-type")
            .map(http::HeaderValue::as_bytes);
        assert_eq!(kind, Some(&b"text/event-stream"[..]));
        Self {
            body: response.into_body(),
            buffer: String::new(),
        }
    }

    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event = parse(&self.buffer[..end]);
                self.buffer.drain(..end + 2);
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.expect("an event in time")?.ok()?;
            let data = frame.into_data().ok()?;
            self.buffer
                .push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Whether it ends in time; that it says that it lives is no reason to wait longer.
    pub(crate) async fn ends(&mut self) -> bool {
        let end = async { while self.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.is_ok()
    }

    /// All events up to and with the first outcome.
    pub(crate) async fn outcome(&mut self) -> Vec<Event> {
        self.until(|event| event.name == "done" || event.name == "error")
            .await
    }

    /// All events up to and with the first that is wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            events.push(event);
            if wanted(&events[events.len() - 1]) {
                return events;
            }
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name));
        let values: Vec<&str> = lines.map(str::trim_start).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    };
    Some(Event {
        id: field("id:")?,
        name: field("event:")?,
        data: serde_json::from_str(&field("data:")?).expect("JSON"),
    })
}

/// The text of the deltas after the last restart.
pub(crate) fn text_of(events: &[Event]) -> String {
    let from = events.iter().rposition(|event| event.name == "restart");
    let after = &events[from.map_or(0, |at| at + 1)..];
    let deltas = after.iter().filter(|event| event.name == "delta");
    deltas
        .filter_map(|event| event.data["text"].as_str())
        .collect()
}

/// Checks that ids only rise.
pub(crate) fn assert_rising(events: &[Event]) {
    for pair in events.windows(2) {
        assert!(
            pair[0].place() < pair[1].place(),
            "{} then {}",
            pair[0].id,
            pair[1].id
        );
    }
}
