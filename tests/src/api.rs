//! A client of the gateway, with the operator's token.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Certificate, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::stream::{Event, Place, Stream};

/// A client of one running server.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// What is answered to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The message.
    pub message: String,
    /// Its turn.
    pub turn: String,
}

impl Api {
    /// A client of the gateway at this URL.
    ///
    /// # Errors
    /// When there can be none.
    pub fn new(base: &str, token: &str) -> anyhow::Result<Self> {
        Self::trusting(base, token, None)
    }

    /// One that believes these authorities alone, in PEM.
    pub(crate) fn trusting(
        base: &str,
        token: &str,
        authorities: Option<&str>,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy();
        let http = match authorities {
            Some(pem) => http.tls_certs_only([Certificate::from_pem(pem.as_bytes())?]),
            None => http,
        };
        let http = http.build()?;
        Ok(Self {
            http,
            base: base.to_owned(),
            token: token.to_owned(),
        })
    }

    /// The operator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    /// A call: its status and its JSON, `null` when there is none.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// A call of the operator that must succeed, below `/admin/v1/`: its JSON.
    ///
    /// # Errors
    /// When it does not.
    pub async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let path = format!("/admin/v1/{path}");
        let (status, answer) = self.call(method.clone(), &path, body).await?;
        ensure!(
            status.is_success(),
            "{method} {path} was answered with {status}: {answer}"
        );
        Ok(answer)
    }

    /// A learner's document.
    ///
    /// # Errors
    /// When it is not given.
    pub async fn learner(&self, learner: &str) -> anyhow::Result<Value> {
        self.admin(Method::GET, &format!("learners/{learner}"), None)
            .await
    }

    /// Puts a learner to sleep and waits for it.
    ///
    /// # Errors
    /// When it does not fall asleep.
    pub async fn sleep(&self, learner: &str) -> anyhow::Result<()> {
        let path = format!("learners/{learner}/sleep");
        let document = self.admin(Method::POST, &path, None).await?;
        ensure!(
            document["state"] == "Asleep",
            "{learner} does not sleep: {document}"
        );
        Ok(())
    }

    /// A message, sent once: what is answered, whatever it is.
    ///
    /// # Errors
    /// When nothing is.
    pub async fn send(
        &self,
        learner: &str,
        text: &str,
        key: &str,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let answer = self.message(learner, text, key).send().await?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// A message, sent once.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn post(&self, learner: &str, text: &str, key: &str) -> anyhow::Result<Accepted> {
        accepted(self.message(learner, text, key).send().await?).await
    }

    /// A message, sent once: whether it is accepted, or when to send it again, with the same key.
    ///
    /// # Errors
    /// When it is refused for good.
    pub async fn try_post(
        &self,
        learner: &str,
        text: &str,
        key: &str,
    ) -> anyhow::Result<Result<Accepted, Duration>> {
        // A connection that breaks says nothing of the message.
        let Ok(answer) = self.message(learner, text, key).send().await else {
            return Ok(Err(Duration::ZERO));
        };
        let again = answer.headers().get(reqwest::header::RETRY_AFTER);
        let again = again.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        match again {
            Some(seconds) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Ok(Err(Duration::from_secs(seconds)))
            }
            _ => accepted(answer).await.map(Ok),
        }
    }

    /// A message with files, each `{name, media_type, data}`.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn post_with(
        &self,
        learner: &str,
        text: &str,
        attachments: Vec<Value>,
    ) -> anyhow::Result<Accepted> {
        let answer = self
            .request(Method::POST, &format!("/v1/learners/{learner}/messages"))
            .header("idempotency-key", uuid::Uuid::new_v4().to_string())
            .json(&json!({"text": text, "attachments": attachments}))
            .send()
            .await?;
        accepted(answer).await
    }

    /// The stream of a message's turn; sends the message if it was not sent yet.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn post_and_follow(
        &self,
        learner: &str,
        text: &str,
        key: &str,
    ) -> anyhow::Result<Stream> {
        let request = self
            .message(learner, text, key)
            .header("accept", "text/event-stream");
        let answer = request.send().await?;
        if answer.status() != StatusCode::OK {
            anyhow::bail!(
                "the message was answered with {}: {}",
                answer.status(),
                answer.text().await?
            );
        }
        Ok(Stream::new(answer, None))
    }

    /// Sends a message and reads its turn: its events, the outcome last.
    ///
    /// # Errors
    /// When there is no outcome.
    pub async fn ask(&self, learner: &str, text: &str) -> anyhow::Result<Vec<Event>> {
        let key = uuid::Uuid::new_v4().to_string();
        let mut stream = self.post_and_follow(learner, text, &key).await?;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await? {
            events.push(event);
        }
        let ended = events.last().is_some_and(Event::is_outcome);
        ensure!(
            ended,
            "the stream of a turn ended without its outcome: {events:?}"
        );
        Ok(events)
    }

    /// Sends a message whose turn must end well: the reply's text.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub async fn reply(&self, learner: &str, text: &str) -> anyhow::Result<String> {
        let events = self.ask(learner, text).await?;
        let last = events.last().context("a turn has an outcome")?;
        ensure!(last.name == "done", "'{text}' ended in {last:?}");
        Ok(last.data["reply"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Sends a message whose turn must fail: the error event.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub async fn failure(&self, learner: &str, text: &str) -> anyhow::Result<Event> {
        let mut events = self.ask(learner, text).await?;
        let last = events.pop().context("a turn has an outcome")?;
        ensure!(last.name == "error", "'{text}' ended in {last:?}");
        Ok(last)
    }

    /// Everything of a learner, from the beginning or after an event.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn events(&self, learner: &str, after: Option<Place>) -> anyhow::Result<Stream> {
        let mut request = self.request(Method::GET, &format!("/v1/learners/{learner}/events"));
        if let Some(place) = after {
            request = request.header("last-event-id", place.to_string());
        }
        Ok(Stream::new(
            request.send().await?.error_for_status()?,
            after,
        ))
    }

    /// A turn's document.
    ///
    /// # Errors
    /// When it is not given.
    pub async fn turn(&self, learner: &str, turn: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/learners/{learner}/turns/{turn}");
        let (status, body) = self.call(Method::GET, &path, None).await?;
        ensure!(
            status == StatusCode::OK,
            "{path} was answered with {status}: {body}"
        );
        Ok(body)
    }

    /// A learner's whole log, as the operator sees it.
    ///
    /// # Errors
    /// When it is not given.
    pub async fn log(&self, learner: &str) -> anyhow::Result<Vec<Value>> {
        let (mut log, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("events?learner={learner}&limit=1000{after}");
            let page = self.admin(Method::GET, &path, None).await?;
            let events = page["events"].as_array().context("a page has events")?;
            if events.is_empty() {
                return Ok(log);
            }
            log.extend(events.iter().cloned());
            after = format!("&after={}", page["next"].as_str().unwrap_or_default());
        }
    }

    /// The events of one kind in a learner's log.
    ///
    /// # Errors
    /// As [`Api::log`].
    pub async fn logged(&self, learner: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
        let mut log = self.log(learner).await?;
        log.retain(|event| event["type"] == kind);
        Ok(log)
    }

    fn message(&self, learner: &str, text: &str, key: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/learners/{learner}/messages"))
            .header("idempotency-key", key)
            .json(&json!({"text": text}))
    }
}

async fn accepted(answer: reqwest::Response) -> anyhow::Result<Accepted> {
    let (status, body) = (answer.status(), answer.json::<Value>().await?);
    ensure!(
        status == StatusCode::ACCEPTED,
        "the message was answered with {status}: {body}"
    );
    let id = |key: &str| {
        body[key]
            .as_str()
            .map(str::to_owned)
            .context("an id is a text")
    };
    Ok(Accepted {
        message: id("message_id")?,
        turn: id("turn_id")?,
    })
}
