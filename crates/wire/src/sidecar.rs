//! What a fleet asks of a sidecar: one request, one connection, no pool to keep.

use std::time::Duration;

use carrel_protocol::sidecar::{AssignRequest, Hello};
use carrel_protocol::{Endpoint, Problem};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::{Trust, connect};

/// How long a sidecar may take to answer, its long polls (25 s) included.
const ANSWER: Duration = Duration::from_secs(35);

/// Why a sidecar gave no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the sidecar does not answer")]
    Silent(#[source] std::io::Error),
    /// The connection broke.
    #[error("the connection to the sidecar broke")]
    Broken(#[source] hyper::Error),
    /// It answered with a problem.
    #[error("the sidecar refused: {0}")]
    Refused(Box<Problem>),
    /// It took too long.
    #[error("the sidecar took too long to answer")]
    Late,
    /// The answer makes no sense.
    #[error("the sidecar answered with status {0} and nothing that can be read")]
    Unreadable(u16),
}

/// A sidecar's address.
#[derive(Debug, Clone)]
pub struct Sidecar {
    endpoint: Endpoint,
    trust: Trust,
}

impl Sidecar {
    /// The sidecar that listens there.
    pub fn at(endpoint: Endpoint, trust: Trust) -> Self {
        Self { endpoint, trust }
    }

    /// Hands over the signed assignment.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn assign(&self, assignment: String) -> Result<(), Error> {
        let body = serde_json::to_vec(&AssignRequest { assignment }).unwrap_or_default();
        self.call(Method::POST, "/v1/assign", None, body)
            .await
            .map(|_| ())
    }

    /// Whether it takes somebody, or could when it was blank: `GET /readyz`, for which nobody needs a token.
    ///
    /// # Errors
    /// When it does not, with the reason.
    pub async fn ready(&self) -> Result<(), Error> {
        self.call(Method::GET, "/readyz", None, Vec::new())
            .await
            .map(|_| ())
    }

    /// How it is, as soon as its report is another than `after` (a revision), or after a while.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn hello(&self, token: &str, after: Option<u64>) -> Result<Hello, Error> {
        let path = match after {
            Some(revision) => format!("/v1/hello?after={revision}"),
            None => "/v1/hello".to_owned(),
        };
        let (status, body) = self
            .call(Method::GET, &path, Some(token), Vec::new())
            .await?;
        parse(status, &body)
    }

    /// Asks it to sleep after its running turn.
    ///
    /// # Errors
    /// When it gives no answer that counts.
    pub async fn sleep(&self, token: &str) -> Result<(), Error> {
        self.call(Method::POST, "/v1/sleep", Some(token), Vec::new())
            .await
            .map(|_| ())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Error> {
        tokio::time::timeout(ANSWER, self.exchange(method, path, token, body))
            .await
            .unwrap_or(Err(Error::Late))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let stream = connect(&self.endpoint, &self.trust)
            .await
            .map_err(Error::Silent)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Broken)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sidecar")
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Error::Unreadable(0))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(Error::Broken)?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(Error::Broken)?
                .to_bytes();
            Ok::<_, Error>((status, body))
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut answer => answer?,
            // The answer may still lie in the channel when the connection ends.
            _ = &mut connection => answer.await?,
        };
        if status.is_success() {
            return Ok((status, body));
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(Error::Refused(Box::new(problem))),
            Err(_) => Err(Error::Unreadable(status.as_u16())),
        }
    }
}

fn parse<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| Error::Unreadable(status.as_u16()))
}
